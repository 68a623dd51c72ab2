package control

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/feature"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/proto"
)

// Validation is how the real Envoy is asked about a policy before anybody is handed it.
type Validation struct {
	// Ask answers for Envoy: [envoy.Validate] with a binary. Its error is an [envoy.Refused], or that Envoy can't be asked.
	Ask func(ctx context.Context, b *bootstrapv3.Bootstrap) error
	// Secrets is the directory where Envoy finds the secrets, which are not handed to it. Those that have no file there
	// are stood in for.
	Secrets string
	// Patience is how long all questions about one policy may take; default 60 seconds.
	Patience time.Duration
}

// maxVerdicts is how many verdicts are remembered: those of the policy that is served and of some that were refused.
const maxVerdicts = 4096

// validator asks about policies, and remembers what it was told. Controller.loading guards it; stop any goroutine may call.
type validator struct {
	o       Validation
	ended   chan struct{} // closed by stop
	taken   map[[sha256.Size]byte]bool
	refused map[question]policy.Problems
}

// question is what a refusal answers: problems have places, which other revisions have not.
type question struct {
	revision, gateway string
	secrets           [sha256.Size]byte // that join no revision
}

func newValidator(o Validation) *validator {
	o.Patience = cmp.Or(o.Patience, time.Minute)
	return &validator{
		o: o, ended: make(chan struct{}),
		taken: make(map[[sha256.Size]byte]bool), refused: make(map[question]policy.Problems),
	}
}

// stop ends a question that is being asked; there are no more after it.
func (v *validator) stop() { close(v.ended) }

// validate has the real Envoy asked about a policy, where that is wanted. The error holds the problems of what Envoy refuses,
// or is that it can't be asked: then nothing new is served, since nobody knows whether an Envoy would take it. What is
// served already, or was before a restart, is not asked about; secrets that have changed are.
func (c *Controller) validate(files policy.Files, compiled *Compiled) error {
	if c.validator == nil || maps.EqualFunc(files, c.last, bytes.Equal) && !c.rotates(compiled.Model) {
		return nil
	}
	begin := time.Now()
	err := c.validator.all(compiled)
	c.metrics.validated(begin, err)
	if err != nil && len(Problems(err)) == 0 {
		return fmt.Errorf("nothing new is served, since Envoy can't be asked about it: %w", err)
	}
	return err
}

// all asks about each gateway whose Envoys would be served something new.
func (v *validator) all(compiled *Compiled) error {
	ctx, cancel := context.WithTimeoutCause(context.Background(), v.o.Patience, fmt.Errorf("no answer within %s", v.o.Patience))
	defer cancel()
	go func() {
		select {
		case <-v.ended:
			cancel()
		case <-ctx.Done():
		}
	}()
	if len(v.taken)+len(v.refused) > maxVerdicts {
		clear(v.taken)
		clear(v.refused)
	}
	var told []error
	seen := make(map[string]bool) // services are those of several gateways
	for _, g := range compiled.Model.Gateways {
		problems, err := v.gateway(ctx, compiled, g)
		if err != nil {
			return fmt.Errorf("gateway %s: %w", g.Name, err)
		}
		for _, p := range problems {
			if !seen[p.Error()] {
				seen[p.Error()] = true
				told = append(told, p)
			}
		}
	}
	return errors.Join(told...)
}

// gateway is what Envoy refuses of a gateway, asked now or before.
func (v *validator) gateway(ctx context.Context, compiled *Compiled, g *policy.Gateway) (policy.Problems, error) {
	secrets, err := secretsSum(compiled.Resources[g.Name])
	if err != nil {
		return nil, err
	}
	asked := question{compiled.Model.Revision, g.Name, secrets}
	if problems, known := v.refused[asked]; known {
		return problems, nil
	}
	b, err := envoy.Static(compiled.Resources[g.Name], envoy.BootstrapOptions{Group: g.Name, Secrets: v.o.Secrets})
	if err != nil {
		return nil, err
	}
	text, err := proto.MarshalOptions{Deterministic: true}.Marshal(b)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(append(text, secrets[:]...))
	if v.taken[sum] {
		return nil, nil
	}
	if err := v.o.Ask(ctx, b); err == nil {
		v.taken[sum] = true
		return nil, nil
	} else if !refusal(err) {
		return nil, err
	}
	if err := v.able(ctx); err != nil {
		return nil, err
	}
	problems, err := envoy.Judge{Kinds: feature.All(), Ask: v.o.Ask, Secrets: v.o.Secrets}.Gateway(ctx, compiled.Model, g)
	if err == nil {
		v.refused[asked] = problems
	}
	return problems, err
}

// secretsSum is a hash of the secrets among resources, which Envoy is asked about by the names of their files.
func secretsSum(resources []envoy.Resource) (sum [sha256.Size]byte, err error) {
	h := sha256.New()
	for _, r := range resources {
		if r.Type != resource.SecretType {
			continue
		}
		value, err := proto.MarshalOptions{Deterministic: true}.Marshal(r.Message)
		if err != nil {
			return sum, err
		}
		h.Write(value)
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}

// able tells whether Envoy would take anything at all: one that ends because of its machine refuses every policy.
func (v *validator) able(ctx context.Context) error {
	b, err := envoy.Static(nil, envoy.BootstrapOptions{})
	if err != nil {
		return err
	}
	if err := v.o.Ask(ctx, b); err != nil {
		return fmt.Errorf("it does not even take an empty one: %w", err)
	}
	return nil
}

func refusal(err error) bool {
	_, ok := errors.AsType[*envoy.Refused](err)
	return ok
}

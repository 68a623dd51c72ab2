package app

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	"github.com/legation/legation/control"
	"github.com/legation/legation/envoy"
)

// maxAnswer is how long Envoy may take for one answer; it takes some tenths of a second, and seconds over ten thousand routes.
const maxAnswer = 20 * time.Second

// validation is how the real Envoy is asked about policies, nil where it isn't. An Envoy that can't be asked is told now, and
// not with the first change.
func (p *process) validation() (*control.Validation, error) {
	if p.o.Validate != EnvoyValidator {
		return nil, nil
	}
	binary, version, err := envoy.Find(p.o.Envoy)
	if err != nil {
		return nil, usagef("--validate envoy: %w", err)
	}
	v := &control.Validation{Secrets: ".", Ask: func(ctx context.Context, b *bootstrapv3.Bootstrap) error {
		ctx, cancel := context.WithTimeoutCause(ctx, maxAnswer, fmt.Errorf("no answer within %s", maxAnswer))
		defer cancel()
		return envoy.Validate(ctx, binary, b)
	}}
	if p.o.SecretsDir != "" {
		if v.Secrets, err = filepath.Abs(p.o.SecretsDir); err != nil {
			return nil, fmt.Errorf("secrets directory: %w", err)
		}
	}
	empty, err := envoy.Static(nil, envoy.BootstrapOptions{})
	if err != nil {
		return nil, err
	}
	if err := v.Ask(context.Background(), empty); err != nil {
		return nil, usagef("--validate envoy: %s, version %s, can't validate: %w", binary, version, err)
	}
	p.o.Log.Info("policies are shown to Envoy before they are served", "path", binary, "version", version)
	if !envoy.Tested(version) {
		p.o.Log.Warn("policies are shown to an Envoy of a version that was not tested", "version", version,
			"hint", "use the version that your Envoys have")
	}
	return v, nil
}

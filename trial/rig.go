package trial

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	logv3 "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	"github.com/legation/legation/callout"
	"github.com/legation/legation/control"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
	"github.com/legation/legation/xds"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
)

// rig is all that a run takes, on ports of this machine that nobody else has: a control plane, a companion, an issuer,
// samples, and an Envoy for each gateway and each sidecar that cases come by.
type rig struct {
	compiled  *control.Compiled
	issuer    *issuer
	samples   *samples
	companion *companion
	journal   *journal
	xds       *xds.Server
	dir       string // of the Envoys, removed at the end

	served map[string][]envoy.Resource // by gateway
	round  int
	envoys map[string]*running
	perRun context.Context // ends with the run
	stop   context.CancelFunc
	done   sync.WaitGroup
	grpc   []*grpc.Server
	http   *http.Server
}

// running is the Envoy of a gateway.
type running struct {
	*envoy.Process
	ports map[string]string // addresses by listener
	said  *lastWords
}

// startGrace is how long the Envoys may take until they serve.
const startGrace = 30 * time.Second

// start starts all that the gateways take. What was started before an error is for close.
func (r *rig) start(ctx context.Context, binary string, gateways []string, ca *authority) error {
	r.perRun, r.stop = context.WithCancel(context.WithoutCancel(ctx))
	r.envoys = map[string]*running{}
	var err error
	if r.dir, err = os.MkdirTemp("", "legation-test-"); err != nil {
		return err
	}
	r.samples, r.journal, r.xds = newSamples(ca), newJournal(), xds.New(xds.Options{})
	r.companion = new(companion)
	if err := r.companion.start(ctx, r.compiled, r.issuer); err != nil {
		return err
	}
	control, err := r.serve(grpc.NewServer(xds.ServerOptions()...), r.xds.Register)
	if err != nil {
		return err
	}
	asked, err := r.serve(grpc.NewServer(grpc.ForceServerCodecV2(callout.AnyText())), r.companion.register,
		func(s grpc.ServiceRegistrar) { logv3.RegisterAccessLogServiceServer(s, r.journal) })
	if err != nil {
		return err
	}
	keys, err := r.serveKeys()
	if err != nil {
		return err
	}
	isolated := &isolated{model: r.compiled.Model, authority: ca, samples: r.samples, issuer: keys}
	gateways = r.needed(gateways)
	if r.served, err = isolated.resources(r.compiled.Resources, gateways); err != nil {
		return err
	}
	r.done.Go(func() { _ = r.xds.Run(r.perRun) })
	if _, err := r.publish(false); err != nil {
		return err
	}
	if err := r.startEnvoys(ctx, binary, gateways, envoy.BootstrapOptions{XDS: control, Companion: asked, Admin: "127.0.0.1:0"}); err != nil {
		return err
	}
	return r.join(ctx)
}

// serve opens a port of gRPC.
func (r *rig) serve(s *grpc.Server, services ...func(grpc.ServiceRegistrar)) (address string, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	for _, register := range services {
		register(s)
	}
	r.grpc = append(r.grpc, s)
	r.done.Go(func() { _ = s.Serve(l) })
	return l.Addr().String(), nil
}

// serveKeys opens the port where Envoys fetch keys.
func (r *rig) serveKeys() (address string, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	r.http = &http.Server{Handler: r.issuer, ReadHeaderTimeout: time.Minute}
	r.done.Go(func() { _ = r.http.Serve(l) })
	return l.Addr().String(), nil
}

// needed adds to some gateways the sidecars that they send to, and those that these do.
func (r *rig) needed(gateways []string) []string {
	all := slices.Clone(gateways)
	for n := 0; n < len(all); n++ {
		for _, one := range r.compiled.Resources[all[n]] {
			if _, ok := one.Message.(*endpointv3.ClusterLoadAssignment); !ok {
				continue
			}
			for _, s := range r.compiled.Model.Services {
				if s.Name == one.Name && s.Sidecar != nil && !slices.Contains(all, s.Sidecar.Name) {
					all = append(all, s.Sidecar.Name)
				}
			}
		}
	}
	return all
}

// publish has the Envoys serve what they are to serve, with new counts of their own from the second time on.
func (r *rig) publish(clusters bool) (*xds.Publication, error) {
	groups := map[string]*xds.Snapshot{}
	for gateway, list := range r.served {
		if r.round > 0 {
			list = renewed(list, r.round, clusters)
		}
		var resources []xds.Resource
		for _, one := range list {
			made, err := xds.NewResource(one.Name, one.Message, one.Pos.String(), one.Salt)
			if err != nil {
				return nil, err
			}
			resources = append(resources, made)
		}
		snapshot, err := xds.NewSnapshot(fmt.Sprint("round ", r.round), resources)
		if err != nil {
			return nil, err
		}
		groups[gateway] = snapshot
	}
	r.round++
	return r.xds.Publish(groups), nil
}

func (r *rig) startEnvoys(ctx context.Context, binary string, gateways []string, o envoy.BootstrapOptions) error {
	for n, gateway := range gateways {
		o.Group = gateway
		said := new(lastWords)
		p, err := envoy.Start(ctx, envoy.ProcessOptions{
			Binary: binary, Dir: filepath.Join(r.dir, fmt.Sprint("envoy-", n)), Log: said, LogLevel: "error", Concurrency: 1,
			Bootstrap: envoy.Bootstrap(o), Drain: time.Millisecond,
		})
		if err != nil {
			return err
		}
		r.envoys[gateway] = &running{Process: p, said: said}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, startGrace, fmt.Errorf("not ready within %s", startGrace))
	defer cancel()
	var group errgroup.Group
	for gateway, e := range r.envoys {
		group.Go(func() error {
			if err := e.await(ctx); err != nil {
				return fmt.Errorf("the Envoy of %s: %w%s", gateway, err, e.said)
			}
			return nil
		})
	}
	return errors.Join(group.Wait(), r.refusals())
}

// await waits until Envoy serves, and notes its ports.
func (e *running) await(ctx context.Context) error {
	if err := e.Ready(ctx); err != nil {
		return err
	}
	listed, err := e.get(ctx, "/listeners?format=json")
	if err != nil {
		return err
	}
	var said struct {
		Listeners []struct {
			Name    string `json:"name"`
			Address struct {
				Socket struct {
					Address string `json:"address"`
					Port    int    `json:"port_value"`
				} `json:"socket_address"`
			} `json:"local_address"`
		} `json:"listener_statuses"`
	}
	if err := json.Unmarshal(listed, &said); err != nil {
		return fmt.Errorf("its listeners: %w", err)
	}
	e.ports = map[string]string{}
	for _, l := range said.Listeners {
		e.ports[l.Name] = net.JoinHostPort(l.Address.Socket.Address, fmt.Sprint(l.Address.Socket.Port))
	}
	return nil
}

// refusals tells what Envoys did not take, at the places of the policy that it comes from.
func (r *rig) refusals() error {
	var errs []error
	for _, node := range r.xds.Status() {
		for _, t := range node.Types {
			if t.State != xds.NACK {
				continue
			}
			at := ""
			for _, b := range t.Blamed {
				at += " " + b.Origin
			}
			errs = append(errs, fmt.Errorf("the Envoy of %s refuses a %s of%s: %s", node.Group, t.Type, at, t.Error))
		}
	}
	return errors.Join(errs...)
}

// join leads calls between sidecars to their ports, which are known now.
func (r *rig) join(ctx context.Context) error {
	if !slices.ContainsFunc(r.compiled.Model.Services, func(s *policy.Service) bool { return s.Sidecar != nil }) {
		return nil
	}
	for gateway, list := range r.served {
		r.served[gateway] = joined(list, r.compiled.Model, func(gateway, listener string) string {
			if e := r.envoys[gateway]; e != nil && e.ports[listener] != "" {
				return e.ports[listener]
			}
			return nowhere
		})
	}
	return r.renew(ctx, false)
}

// renew has Envoys begin anew what they count by themselves, and with clusters also what they think of endpoints.
func (r *rig) renew(ctx context.Context, clusters bool) error {
	p, err := r.publish(clusters)
	if err != nil {
		return err
	}
	select {
	case <-p.Done():
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if state := p.Outcome().State; state != xds.Acknowledged {
		return errors.Join(fmt.Errorf("the Envoys did not take the policy anew: %s", state), r.refusals())
	}
	if !clusters {
		return nil
	}
	for gateway, e := range r.envoys {
		if err := e.warm(ctx); err != nil {
			return fmt.Errorf("the Envoy of %s: %w", gateway, err)
		}
	}
	return nil
}

// warm waits until Envoy uses the clusters that it was given: those that check the health of endpoints do so before.
func (e *running) warm(ctx context.Context) error {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		said, err := e.get(ctx, "/stats?filter=^cluster_manager.warming_clusters$")
		if err != nil || strings.HasSuffix(strings.TrimSpace(string(said)), ": 0") {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// get asks the admin interface.
func (e *running) get(ctx context.Context, path string) ([]byte, error) {
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+e.Admin()+path, nil)
	if err != nil {
		return nil, err
	}
	answer, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(q)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	return io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
}

// ended tells of Envoys that run no more, which nobody has told to end.
func (r *rig) ended() error {
	var errs []error
	for gateway, e := range r.envoys {
		if err := e.Err(); err != nil {
			errs = append(errs, fmt.Errorf("the Envoy of %s: %w%s", gateway, err, e.said))
		}
	}
	return errors.Join(errs...)
}

// stopGrace is how long Envoys may take to end.
const stopGrace = 5 * time.Second

// close ends everything, and leaves nothing behind.
func (r *rig) close() error {
	if r.stop == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopGrace)
	defer cancel()
	var group errgroup.Group
	for _, e := range r.envoys {
		group.Go(func() error { return e.Stop(ctx) })
	}
	errs := []error{group.Wait()}
	r.stop()
	for _, s := range r.grpc {
		s.Stop()
	}
	if r.http != nil {
		errs = append(errs, r.http.Close())
	}
	if r.samples != nil {
		r.samples.close()
	}
	r.done.Wait()
	if r.companion != nil {
		errs = append(errs, r.companion.close())
	}
	return errors.Join(append(errs, os.RemoveAll(r.dir))...)
}

// lastWords keeps the end of what an Envoy prints, for the case that it does not work.
type lastWords struct {
	mu   sync.Mutex // guards text
	text []byte
}

const mostWords = 4 << 10

func (w *lastWords) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text = append(w.text, p...)
	w.text = w.text[max(0, len(w.text)-mostWords):]
	return len(p), nil
}

func (w *lastWords) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if text := strings.TrimSpace(string(bytes.ToValidUTF8(w.text, nil))); text != "" {
		return "\n" + text
	}
	return ""
}

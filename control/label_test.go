package control

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	setmetadatav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/set_metadata/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/google/go-cmp/cmp"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/xds"
)

// types is those that may change.
var types = []string{
	resource.ClusterType, resource.EndpointType, resource.ListenerType, resource.RouteType, resource.ScopedRouteType,
	resource.ExtensionConfigType, resource.SecretType,
}

// changed is the types in which two snapshots differ.
func changed(a, b *xds.Snapshot) []string {
	return slices.DeleteFunc(slices.Clone(types), func(url string) bool { return a.Version(url) == b.Version(url) })
}

// A revision that changes nothing of a group changes its labels alone, and is no other snapshot to those who judge; every
// process makes the same ones.
func TestLabelsAreAllThatARevisionChanges(t *testing.T) {
	t.Parallel()
	first, second := compile(t, protected(1, 10)), compile(t, "# the same\n"+protected(1, 10))
	one, other := new(encoder), new(encoder)
	a, err := one.snapshots(first)
	must(t, err)
	b, err := one.snapshots(second)
	must(t, err)
	again, err := other.snapshots(second)
	must(t, err)
	if d := cmp.Diff([]string{resource.ExtensionConfigType}, changed(a["edge"], b["edge"])); d != "" {
		t.Errorf("changed (-want +got):\n%s", d)
	}
	if got := changed(b["edge"], again["edge"]); len(got) > 0 {
		t.Errorf("another process has other versions of %q", got)
	}
	if digest(a["edge"]) != digest(b["edge"]) {
		t.Error("the digests of the two differ")
	}
	c, err := one.snapshots(compile(t, protected(2, 10)))
	must(t, err)
	if digest(b["edge"]) == digest(c["edge"]) {
		t.Error("the digest of another policy is the same")
	}
}

// askLabel has the Envoy ask for the label of requests.
func (e *proxy) askLabel() {
	e.t.Helper()
	must(e.t, e.stream.Send(&discoveryv3.DeltaDiscoveryRequest{
		TypeUrl: resource.ExtensionConfigType, ResourceNamesSubscribe: []string{envoy.RequestLabel},
	}))
	synctest.Wait()
}

// label is what the Envoy was last told to call the revision.
func (e *proxy) label() string {
	e.t.Helper()
	all := e.labels()
	return all[len(all)-1]
}

// labels is all that it was told.
func (e *proxy) labels() (all []string) {
	e.t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, r := range e.took {
		one, filter := new(corev3.TypedExtensionConfig), new(setmetadatav3.Config)
		if !r.GetResource().MessageIs(one) {
			continue
		}
		must(e.t, r.GetResource().UnmarshalTo(one))
		must(e.t, one.GetTypedConfig().UnmarshalTo(filter))
		all = append(all, filter.GetMetadata()[0].GetValue().GetFields()[envoy.LabelKey].GetStringValue())
	}
	return all
}

// A group that has gone back tells the revision that it is served; what was refused stays parked in a revision in which it
// is the same.
func TestLabelGoesBackWithTheGroup(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := judging(t, Options{})
		first := p.push(protected(1, 10))
		e := p.envoy()
		e.askLabel()
		if got, want := e.label(), first.Model.Revision[:12]; got != want {
			t.Errorf("at first: %q, want %q", got, want)
		}
		answers := 0
		e.set(func() {
			e.seen = func() { answers++; e.refuse = answers == 1 } // the routes, and not the label behind them
		})
		second := p.push(protected(2, 20))
		before, refused := first.Model.Revision[:12], second.Model.Revision[:12]
		if got, want := e.labels(), []string{before, refused, before}; !cmp.Equal(got, want) {
			t.Errorf("told %q, want %q", got, want)
		}
		pass(5 * time.Second)
		if got, want := e.label(), first.Model.Revision[:12]; got != want || len(p.Outcome().Parked) != 1 {
			t.Errorf("gone back: %q, want %q; parked: %+v", got, want, p.Outcome().Parked)
		}
		p.push("# the same\n" + protected(2, 20))
		pass(5 * time.Second)
		if got, want := e.label(), first.Model.Revision[:12]; got != want || len(p.Outcome().Parked) != 1 {
			t.Errorf("with a comment: %q, want %q; parked: %+v", got, want, p.Outcome().Parked)
		}
		last := p.push(protected(3, 30))
		pass(5 * time.Second)
		if got, want := e.label(), last.Model.Revision[:12]; got != want {
			t.Errorf("taken: %q, want %q", got, want)
		}
	})
}

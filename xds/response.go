package xds

import (
	"context"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/types/known/anypb"
)

// response is a token for a state-of-the-world response. go-control-plane makes it one just before it sends it.
type response struct {
	st *stream
	t  *subscription
}

// GetDiscoveryResponse makes the response.
func (r response) GetDiscoveryResponse() (*discoveryv3.DiscoveryResponse, error) {
	r.st.mu.Lock()
	defer r.st.mu.Unlock()
	s := r.st.ship(r.t)
	bodies := make([]*anypb.Any, 0, len(s.entries))
	for _, e := range s.entries {
		bodies = append(bodies, e.Body)
	}
	return &discoveryv3.DiscoveryResponse{VersionInfo: s.version, TypeUrl: r.t.url, Resources: bodies}, nil
}

func (r response) GetRequest() *discoveryv3.DiscoveryRequest {
	return &discoveryv3.DiscoveryRequest{TypeUrl: r.t.url}
}

func (r response) GetVersion() (string, error)             { return "", nil }
func (r response) GetResponseVersion() string              { return "" }
func (r response) GetReturnedResources() map[string]string { return map[string]string{} }
func (r response) GetContext() context.Context             { return r.st.ctx }

// deltaResponse is the same for delta.
type deltaResponse struct {
	st *stream
	t  *subscription
}

// GetDeltaDiscoveryResponse makes the response.
func (r deltaResponse) GetDeltaDiscoveryResponse() (*discoveryv3.DeltaDiscoveryResponse, error) {
	r.st.mu.Lock()
	defer r.st.mu.Unlock()
	s := r.st.ship(r.t)
	resources := make([]*discoveryv3.Resource, 0, len(s.entries))
	for _, e := range s.entries {
		resources = append(resources, e.delta)
	}
	return &discoveryv3.DeltaDiscoveryResponse{
		SystemVersionInfo: s.version,
		TypeUrl:           r.t.url,
		Resources:         resources,
		RemovedResources:  s.gone,
	}, nil
}

func (r deltaResponse) GetDeltaRequest() *discoveryv3.DeltaDiscoveryRequest {
	return &discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.t.url}
}

func (r deltaResponse) GetSystemVersion() (string, error)       { return "", nil }
func (r deltaResponse) GetResponseVersion() string              { return "" }
func (r deltaResponse) GetNextVersionMap() map[string]string    { return map[string]string{} }
func (r deltaResponse) GetReturnedResources() map[string]string { return map[string]string{} }
func (r deltaResponse) GetContext() context.Context             { return r.st.ctx }

// ship makes of t what may be sent now, and notes it as sent.
func (st *stream) ship(t *subscription) *shipment {
	to := st.target.set(t.url)
	c, all, left := st.allowed(t, t.pending(to))
	t.commit(to, c, all, left)
	s := &shipment{version: to.version, entries: c.upserts, gone: c.absent}
	if len(c.asked) > 0 {
		s.entries = append(append([]*entry(nil), c.upserts...), c.asked...)
	}
	for _, e := range c.gone {
		s.gone = append(s.gone, e.Name)
	}
	s.changed = s.entries
	st.renewEndpoints(t, s.changed)
	if t.protocol == SotW && !t.kind.part {
		s.entries, s.whole = t.all(), true
		if t.wildcard && (t.base != to || len(t.over) > 0) {
			s.version = versionOf(s.entries)
		}
	}
	t.queued, t.answered = false, true
	t.inflight, t.sent, t.at = s, s.version, time.Now()
	st.progress, st.late = t.at, false
	st.step()
	return s
}

// renewEndpoints makes the assignments of the clusters due again, because Envoy waits for them after a change of the
// cluster, but does not ask for what it has.
func (st *stream) renewEndpoints(t *subscription, clusters []*entry) {
	e := st.find(resource.EndpointType)
	if e == nil || t.url != resource.ClusterType {
		return
	}
	for _, c := range clusters {
		if c.endpoints != "" && e.has(c.endpoints) != nil {
			e.except(c.endpoints, nil)
		}
	}
}

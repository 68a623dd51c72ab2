package xds

import (
	"cmp"
	"iter"
	"maps"
	"slices"
	"time"
)

// Traffic is requests within a span of time.
type Traffic struct {
	Issued    uint64 `json:"issued"` // sent to an endpoint
	Succeeded uint64 `json:"succeeded"`
	Failed    uint64 `json:"failed"`            // answered with 5xx, reset or timed out
	Dropped   uint64 `json:"dropped,omitempty"` // by Envoy itself, over drop_overload; told of a service only
}

func (t Traffic) plus(o Traffic) Traffic {
	return Traffic{
		Issued: t.Issued + o.Issued, Succeeded: t.Succeeded + o.Succeeded,
		Failed: t.Failed + o.Failed, Dropped: t.Dropped + o.Dropped,
	}
}

// ErrorShare is the part of the finished requests that failed, from 0 to 1; 0 when none has finished.
func (t Traffic) ErrorShare() float64 {
	if t.Failed == 0 {
		return 0
	}
	return float64(t.Failed) / float64(t.Succeeded+t.Failed)
}

// Window is the traffic that was reported within the last seconds.
type Window struct {
	Traffic
	PerSecond  float64 `json:"perSecond"`  // issued
	ErrorShare float64 `json:"errorShare"` // see [Traffic.ErrorShare]
}

// Figure is one of the named figures that endpoints tell of their requests (ORCA), over the last minute. The latency is
// such a figure: Envoy measures none for its reports.
type Figure struct {
	Requests uint64  `json:"requests"`
	Total    float64 `json:"total"` // divided by the requests: the mean
}

func (f Figure) plus(o Figure) Figure {
	return Figure{Requests: f.Requests + o.Requests, Total: f.Total + o.Total}
}

// Load is what Envoys report of the requests that they send to one place.
type Load struct {
	InProgress uint64            `json:"inProgress"` // by the last report of each connected Envoy
	Recent     Window            `json:"last10s"`
	Minute     Window            `json:"last1m"`
	Total      Traffic           `json:"total"` // since the first report that is remembered
	Figures    map[string]Figure `json:"figures,omitempty"`
}

// ServiceLoad is the load of one service of one node group, from all Envoys of the group.
type ServiceLoad struct {
	Group   string `json:"group"`
	Service string `json:"service"` // the cluster
	Load
	Zones []ZoneLoad `json:"zones,omitempty"`
}

// ZoneLoad is the part of it that goes to the endpoints of one zone.
type ZoneLoad struct {
	Zone string `json:"zone"` // region/zone/sub-zone as far as they are set
	Load
	Endpoints []EndpointLoad `json:"endpoints,omitempty"` // where Envoys are asked for it
}

// EndpointLoad is the part of it that goes to one endpoint.
type EndpointLoad struct {
	Address string `json:"address"`
	Load
}

// The windows, and how finely they are kept. Envoys report each [LoadOptions.Interval], each in its own rhythm.
const (
	recent   = 10 * time.Second
	minute   = time.Minute
	slotSize = 2 * time.Second
)

// series is a sum, and what of it fell into which slot of the last minute.
type series[T interface{ plus(T) T }] struct {
	total T
	slots []slot[T] // by time, of which only those with something in them are kept
}

type slot[T any] struct {
	number int64
	sum    T
}

func slotOf(t time.Time) int64 { return t.UnixNano() / int64(slotSize) }

func (s *series[T]) add(now time.Time, v T) {
	s.total = s.total.plus(v)
	number := slotOf(now)
	if n := len(s.slots); n > 0 && s.slots[n-1].number == number {
		s.slots[n-1].sum = s.slots[n-1].sum.plus(v)
		return
	}
	oldest := slotOf(now.Add(-minute))
	s.slots = append(slices.DeleteFunc(s.slots, func(o slot[T]) bool { return o.number <= oldest }), slot[T]{number, v})
}

// within sums up what was added in the time before now.
func (s *series[T]) within(now time.Time, d time.Duration) (sum T) {
	oldest := slotOf(now.Add(-d))
	for _, o := range s.slots {
		if o.number > oldest {
			sum = sum.plus(o.sum)
		}
	}
	return sum
}

// place is what counts are kept of: a service, a zone of it, an endpoint in that.
type place struct {
	group, service string
	level          level
	zone, endpoint string
}

type level int

const (
	ofService level = iota
	ofZone
	ofEndpoint
)

func (p place) compare(o place) int {
	return cmp.Or(cmp.Compare(p.group, o.group), cmp.Compare(p.service, o.service), cmp.Compare(p.zone, o.zone),
		cmp.Compare(p.level, o.level), cmp.Compare(p.endpoint, o.endpoint))
}

// row is the counts of one place.
type row struct {
	place
	traffic    series[Traffic]
	figures    map[string]*series[Figure]
	inProgress uint64
	seen       time.Time // when it was last reported
	named      bool      // a service that is a label of its own in the metrics
}

// figure finds or makes the named figure.
func (r *row) figure(name string) *series[Figure] {
	f := r.figures[name]
	if f == nil {
		f = &series[Figure]{}
		if r.figures == nil {
			r.figures = map[string]*series[Figure]{}
		}
		r.figures[name] = f
	}
	return f
}

func (r *row) load(now time.Time) Load {
	l := Load{
		InProgress: r.inProgress,
		Recent:     windowOf(r.traffic.within(now, recent), recent),
		Minute:     windowOf(r.traffic.within(now, minute), minute),
		Total:      r.traffic.total,
	}
	for name, f := range r.figures {
		if sum := f.within(now, minute); sum.Requests > 0 {
			if l.Figures == nil {
				l.Figures = map[string]Figure{}
			}
			l.Figures[name] = sum
		}
	}
	return l
}

func windowOf(t Traffic, d time.Duration) Window {
	return Window{Traffic: t, PerSecond: float64(t.Issued) / d.Seconds(), ErrorShare: t.ErrorShare()}
}

// All goes through the services that Envoys have reported of, by group and name. It shows one moment.
func (l *Loads) All() iter.Seq[ServiceLoad] {
	return slices.Values(l.Snapshot())
}

// Snapshot lists the services that Envoys have reported of, by group and name.
func (l *Loads) Snapshot() []ServiceLoad {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []ServiceLoad
	for _, p := range slices.SortedFunc(maps.Keys(l.rows), place.compare) {
		load := l.rows[p].load(now)
		if p.level == ofService {
			list = append(list, ServiceLoad{Group: p.group, Service: p.service, Load: load})
			continue
		}
		s := &list[len(list)-1] // a service sorts before its zones, and has a row when they have
		if p.level == ofZone {
			s.Zones = append(s.Zones, ZoneLoad{Zone: p.zone, Load: load})
			continue
		}
		z := &s.Zones[len(s.Zones)-1]
		z.Endpoints = append(z.Endpoints, EndpointLoad{Address: p.endpoint, Load: load})
	}
	return list
}

// Changed is closed at the next report. Who waits for it takes [Loads.Snapshot] only after asking for the channel, so as
// to miss none.
func (l *Loads) Changed() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

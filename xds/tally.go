package xds

import (
	"fmt"
	"math"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/proto"
)

// take adds one report of an Envoy to the counts. What does not belong to the group or cannot be true is left out, and
// counted by its reason.
func (l *Loads) take(r *reporter, stats [][]byte) {
	served := l.server.clusters(r.group)
	now := time.Now()
	var reports []*endpointv3.ClusterStats
	refused := map[string]float64{}
	for _, raw := range stats {
		if served.get(textField(raw, 1)) == nil {
			refused[unknownService]++
			continue
		}
		var c endpointv3.ClusterStats
		if err := proto.Unmarshal(raw, &c); err != nil || !plausible(&c) {
			refused[implausible]++
			continue
		}
		reports = append(reports, &c)
	}

	l.mu.Lock()
	if !r.gone {
		t := tally{l: l, now: now, group: r.group, held: map[*row]uint64{}, refused: refused}
		for _, c := range reports {
			t.cluster(c)
		}
		r.hold(t.held)
		if len(reports) > 0 {
			close(l.changed)
			l.changed = make(chan struct{})
		}
	}
	l.mu.Unlock()
	for reason, n := range refused {
		l.metrics.refused.WithLabelValues(reason).Add(n)
	}
}

// Why a part of a report does not count.
const (
	unknownService = "unknown service" // the group is not served it: Envoys also report of the clusters of their bootstrap
	implausible    = "implausible"
	namesExceeded  = "too many"
)

// plausible refuses counts that were negative before they were written as unsigned, and the like.
func plausible(c *endpointv3.ClusterStats) bool {
	counts := []uint64{c.GetTotalDroppedRequests()}
	for _, z := range c.GetUpstreamLocalityStats() {
		counts = append(counts, z.GetTotalIssuedRequests(), z.GetTotalSuccessfulRequests(), z.GetTotalErrorRequests(), z.GetTotalRequestsInProgress())
		for _, e := range z.GetUpstreamEndpointStats() {
			counts = append(counts, e.GetTotalIssuedRequests(), e.GetTotalSuccessfulRequests(), e.GetTotalErrorRequests(), e.GetTotalRequestsInProgress())
		}
	}
	for _, n := range counts {
		if n > maxCount {
			return false
		}
	}
	return true
}

// tally adds one report to the rows, with the lock held.
type tally struct {
	l       *Loads
	now     time.Time
	group   string
	held    map[*row]uint64
	refused map[string]float64
}

func (t *tally) cluster(c *endpointv3.ClusterStats) {
	service := place{group: t.group, service: c.GetClusterName()}
	whole := Traffic{Dropped: c.GetTotalDroppedRequests()}
	var inProgress uint64
	figures := map[string]Figure{}
	t.row(service) // before its parts
	for _, z := range c.GetUpstreamLocalityStats() {
		traffic := Traffic{Issued: z.GetTotalIssuedRequests(), Succeeded: z.GetTotalSuccessfulRequests(), Failed: z.GetTotalErrorRequests()}
		whole = whole.plus(traffic)
		inProgress += z.GetTotalRequestsInProgress()
		told := figuresOf(z)
		for name, f := range told {
			figures[name] = figures[name].plus(f)
		}
		zone := service
		zone.level, zone.zone = ofZone, zoneOf(z.GetLocality())
		if !t.add(zone, traffic, z.GetTotalRequestsInProgress(), told) {
			continue
		}
		for _, e := range z.GetUpstreamEndpointStats() {
			endpoint := zone
			endpoint.level, endpoint.endpoint = ofEndpoint, addressText(e.GetAddress())
			traffic := Traffic{Issued: e.GetTotalIssuedRequests(), Succeeded: e.GetTotalSuccessfulRequests(), Failed: e.GetTotalErrorRequests()}
			t.add(endpoint, traffic, e.GetTotalRequestsInProgress(), namedFigures(e.GetLoadMetricStats()))
		}
	}
	t.add(service, whole, inProgress, figures)
}

// add adds to the row of a place, unless there is no room for it.
func (t *tally) add(p place, traffic Traffic, inProgress uint64, figures map[string]Figure) bool {
	r := t.row(p)
	if r == nil {
		t.refused[namesExceeded]++
		return false
	}
	r.seen = t.now
	if traffic != (Traffic{}) {
		r.traffic.add(t.now, traffic)
		if p.level == ofService && !r.named {
			t.l.others[p.group] = t.l.others[p.group].plus(traffic)
		}
	}
	if inProgress > 0 && (len(t.held) < maxHeld || t.held[r] > 0) {
		t.held[r] += inProgress
	}
	for name, f := range figures {
		if r.figures[name] == nil && len(r.figures) == maxFigures {
			t.refused[namesExceeded]++
			continue
		}
		r.figure(name).add(t.now, f)
	}
	return true
}

// row finds or makes the row of a place; nil when its group or service has too many.
func (t *tally) row(p place) *row {
	r := t.l.rows[p]
	if r != nil {
		return r
	}
	of := [2]string{p.group, p.service}
	switch {
	case p.level == ofService:
		r = &row{place: p, named: t.l.named < maxNamed}
		if r.named {
			t.l.named++
		}
	case t.l.finer[p.group] >= maxFiner || t.l.parts[of] >= maxParts || len(p.zone) > maxName || len(p.endpoint) > maxName:
		return nil
	default:
		r = &row{place: p}
		t.l.finer[p.group]++
		t.l.parts[of]++
	}
	t.l.rows[p] = r
	return r
}

func zoneOf(l *corev3.Locality) string {
	text := l.GetZone()
	if l.GetRegion() != "" {
		text = l.GetRegion() + "/" + text
	}
	if l.GetSubZone() != "" {
		text += "/" + l.GetSubZone()
	}
	return text
}

func addressText(a *corev3.Address) string {
	if p := a.GetPipe(); p != nil {
		return p.GetPath()
	}
	s := a.GetSocketAddress()
	host := s.GetAddress()
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return fmt.Sprintf("%s:%d", host, s.GetPortValue())
}

// figuresOf is what the endpoints of a zone tell of themselves.
func figuresOf(z *endpointv3.UpstreamLocalityStats) map[string]Figure {
	figures := namedFigures(z.GetLoadMetricStats())
	for name, u := range map[string]*endpointv3.UnnamedEndpointLoadMetricStats{
		"cpu_utilization":         z.GetCpuUtilization(),
		"mem_utilization":         z.GetMemUtilization(),
		"application_utilization": z.GetApplicationUtilization(),
	} {
		if f := (Figure{u.GetNumRequestsFinishedWithMetric(), u.GetTotalMetricValue()}); f.sane() {
			figures[name] = f
		}
	}
	return figures
}

func namedFigures(list []*endpointv3.EndpointLoadMetricStats) map[string]Figure {
	figures := map[string]Figure{}
	for _, m := range list {
		f := Figure{m.GetNumRequestsFinishedWithMetric(), m.GetTotalMetricValue()}
		if name := m.GetMetricName(); f.sane() && len(name) <= maxName && len(figures) < maxFigures {
			figures[name] = figures[name].plus(f)
		}
	}
	return figures
}

// sane is whether a figure can be added to others.
func (f Figure) sane() bool {
	return f.Requests > 0 && f.Requests <= maxCount && math.Abs(f.Total) <= 1e18 // which is false of what is no number
}

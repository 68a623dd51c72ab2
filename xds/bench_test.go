package xds

import (
	"fmt"
	"testing"
)

// BenchmarkPublish is one changed route of 100 (in 1,000 clusters) to 100 Envoys over delta, until all have acknowledged.
func BenchmarkPublish(b *testing.B) {
	var fixed []Resource
	var names []string
	for i := range 1000 {
		name := fmt.Sprintf("service-%04d", i)
		fixed = append(fixed, cluster(name, "1"), endpoint(name, "1"))
		names = append(names, name)
	}
	for i := range 99 {
		fixed = append(fixed, route(fmt.Sprintf("r-%02d", i), "1"))
	}
	fixed = append(fixed, listener("l", "1"))
	at := func(i int) map[string]*Snapshot {
		return snapshot(b, fmt.Sprint(i), append(fixed[:len(fixed):len(fixed)], route("r", fmt.Sprint(i)))...)
	}
	p := start(b, Options{})
	<-p.Publish(at(0)).Done()
	for i := range 100 {
		e := p.envoy(b, Delta, fmt.Sprintf("e%03d", i))
		e.ask(cds)
		e.ask(eds, names...)
		e.ask(lds)
		e.ask(rds, "r")
	}
	for len(p.Status()) < 100 {
	}
	snapshots := make([]map[string]*Snapshot, b.N+1)
	for i := range snapshots {
		snapshots[i] = at(i + 1)
	}
	<-p.Publish(snapshots[b.N]).Done()
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		pub := p.Publish(snapshots[i])
		<-pub.Done()
		if got := pub.Outcome().State; got != Acknowledged {
			b.Fatalf("state %s", got)
		}
	}
}

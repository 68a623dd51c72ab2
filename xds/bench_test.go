package xds

import (
	"fmt"
	"testing"
)

// BenchmarkPublish is one changed route configuration of 1,000 (beside 1,000 clusters) to 1,000 Envoys over delta, until
// all have acknowledged. The clients are grpc-go's and run in the same process.
func BenchmarkPublish(b *testing.B) {
	const envoys = 1000
	var fixed []Resource
	var clusters, routes []string
	for i := range 1000 {
		name := fmt.Sprintf("service-%04d", i)
		fixed = append(fixed, cluster(name, "1"), endpoint(name, "1"))
		clusters = append(clusters, name)
	}
	for i := range 999 {
		name := fmt.Sprintf("r-%03d", i)
		fixed = append(fixed, route(name, "1"))
		routes = append(routes, name)
	}
	fixed = append(fixed, listener("l", "1"))
	routes = append(routes, "r")
	var last *Snapshot
	at := func(i int) map[string]*Snapshot {
		next, err := last.Next(fmt.Sprint(i), append(fixed[:len(fixed):len(fixed)], route("r", fmt.Sprint(i))))
		if err != nil {
			b.Fatal(err)
		}
		last = next
		return map[string]*Snapshot{"edge": next}
	}
	p := start(b, Options{})
	<-p.Publish(at(0)).Done()
	for i := range envoys {
		e := p.envoy(b, Delta, fmt.Sprintf("e%03d", i))
		e.ask(cds)
		e.ask(eds, clusters...)
		e.ask(lds)
		e.ask(rds, routes...)
	}
	for len(p.Status()) < envoys {
	}
	<-p.Publish(at(1)).Done()
	b.ReportAllocs()
	i := 1
	for b.Loop() {
		i++
		pub := p.Publish(at(i))
		<-pub.Done()
		if got := pub.Outcome().State; got != Acknowledged {
			b.Fatalf("state %s", got)
		}
	}
}

// BenchmarkSnapshot is 50,000 route configurations of which one has changed.
func BenchmarkSnapshot(b *testing.B) {
	const routes = 50_000
	resources := make([]Resource, routes)
	for i := range resources {
		resources[i] = route(fmt.Sprintf("host-%05d.example.com", i), "1")
	}
	variants := []Resource{route(resources[routes/2].Name, "2"), route(resources[routes/2].Name, "3")}
	for name, from := range map[string]func(last *Snapshot) *Snapshot{
		"new":  func(*Snapshot) *Snapshot { return nil },
		"next": func(last *Snapshot) *Snapshot { return last },
	} {
		b.Run(name, func(b *testing.B) {
			last := snapshot(b, "1", resources...)["edge"]
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				resources[routes/2] = variants[i%2]
				next, err := from(last).Next("2", resources)
				if err != nil {
					b.Fatal(err)
				}
				if d := next.since(next.set(rds), last.set(rds)); len(d.upserts) != 1 {
					b.Fatalf("%d changes, want 1", len(d.upserts))
				}
				last = next
			}
		})
	}
}

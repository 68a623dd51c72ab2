package main

import (
	"strings"
	"testing"
)

func TestReportComparesWithTheCache(t *testing.T) {
	t.Parallel()
	s := settings{layout: perHost, engine: cache}
	ours := s
	ours.engine = legation
	least := s
	least.engine = bare
	r := report{rows: []row{
		{s, figures{changeCPU: 300e6, change: 300e6, joinCPU: 90e6, reconnectCPU: 100e6, rss: 100 << 20}},
		{least, figures{reconnectCPU: 1e6}},
		{ours, figures{changeCPU: 10e6, change: 10e6, joinCPU: 10e6, reconnectCPU: 2e6, rss: 10 << 20}},
	}}
	var out strings.Builder
	if err := r.print(&out, s); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"10.0 ms (30.0 ×)", "10 MiB (10.0 ×)", "met    delta perHost, CPU of a change: 30.0 ×", "MISSED delta perHost, CPU of a join storm: 9.0 ×",
		"met    delta perHost, CPU of a reconnection: 50.0 × less, wanted 50 ×; a gRPC server that only reads: 100.0 ×\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in:\n%s", want, out.String())
		}
	}
}

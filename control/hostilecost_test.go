//go:build !race

package control

import (
	"bytes"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/legation/legation/feature"
	"github.com/legation/legation/policy"
)

// What no file may make us allocate in order to refuse it, all in all: what stays reachable at once is far less. The time
// goes by it, and is for the benchmark: no test could hold it on a busy machine.
const (
	affordable = 64        // MiB
	objects    = 1_500_000 // that one file may make
	shown      = 1 << 20   // bytes of what is told of it
)

// The race detector has everything allocate more: make test runs this one without it.
func TestHostilePoliciesCostLittle(t *testing.T) {
	lang := feature.Language()
	warm(lang)
	for _, h := range catalogue() {
		t.Run(h.name, func(t *testing.T) {
			files := h.files()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			taken, problems, told := judge(lang, files)
			runtime.ReadMemStats(&after)
			if taken != h.taken {
				t.Errorf("taken: %t, want %t: %.300v", taken, h.taken, problems)
			}
			errs, _ := problems.Split()
			if h.want != "" && !slices.ContainsFunc(errs, func(p *policy.Problem) bool { return strings.Contains(p.Message, h.want) }) {
				t.Errorf("told %.300v, want %q", errs, h.want)
			}
			most := h.most
			if most == 0 {
				most = affordable
			}
			if got := int((after.TotalAlloc - before.TotalAlloc) >> 20); got > most {
				t.Errorf("%d MiB allocated, want at most %d", got, most)
			}
			if got := after.Mallocs - before.Mallocs; !h.taken && len(files) < 100 && got > objects {
				t.Errorf("%d objects made, want at most %d", got, objects)
			}
			if limit := shown + len(files)*100; told > limit {
				t.Errorf("%d bytes told, want at most %d", told, limit)
			}
		})
	}
}

// What is good goes on being served beside any of them, and changes.
func TestHostileFilesHoldNobodyElseUp(t *testing.T) {
	lang := feature.Language()
	edge := "gateways: {edge: {listeners: {http: {port: 10000}}}}\n"
	team := func(to string) []byte {
		return []byte("services: {mine: {dns: '" + to + ":80'}}\nroutes: {mine: {gateways: [edge], hostnames: [mine.test], backends: {mine: 1}}}\n")
	}
	last := policy.Files{"edge.yaml": []byte(edge), "mine.yaml": team("before")}
	for _, h := range slices.Concat(texts(), settings(), products(), besides()) {
		t.Run(h.name, func(t *testing.T) {
			files := h.files()
			files["edge.yaml"], files["mine.yaml"] = []byte(edge), team("after")
			served, model, problems := lang.Isolate(files, last)
			if model == nil || !problems.HasErrors() {
				t.Fatalf("served: %t, problems: %v", model != nil, problems)
			}
			if _, kept := served["a.yaml"]; kept || !bytes.Contains(served["mine.yaml"], []byte("after")) {
				t.Errorf("serves %q", served["mine.yaml"])
			}
			for _, p := range problems {
				if slices.Contains([]string{"edge.yaml", "mine.yaml"}, p.Pos.File) {
					t.Errorf("blames %v", p)
				}
			}
		})
	}
}

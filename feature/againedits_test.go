//go:build !race

package feature_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/legation/legation/feature"
	"github.com/legation/legation/policy"
)

// edit changes something of the world, and tells what.
func (w *world) edit() string {
	edits := []struct {
		often int
		name  string
		do    func()
	}{
		{8, "a route's settings", func() { w.change("routes", "route") }},
		{6, "a service's settings", func() { w.change("services", "service") }},
		{5, "what a route asks for", func() {
			if _, r := w.entry("routes"); r != nil && r["match"] != nil {
				r["match"] = object{"path": w.path()}
				w.condition(r)
			}
		}},
		{4, "what a route looks at", func() {
			if _, r := w.entry("routes"); r != nil && r["match"] != nil {
				w.special(r)
			}
		}},
		{5, "endpoints", func() {
			if _, s := w.entry("services"); s != nil && s["dns"] == nil {
				s["endpoints"] = w.endpoints()
			}
		}},
		{4, "a route more", w.addRoute},
		{3, "a service more", w.addService},
		{3, "a route less", func() { w.remove("routes") }},
		{2, "a service less", func() { w.remove("services") }},
		{2, "a route renamed", func() { w.rename("routes") }},
		{1, "a service renamed", func() { w.rename("services") }},
		{3, "an entry moved", w.move},
		{1, "an entry doubled", func() {
			section := w.pick("routes", "services", "auth").(string)
			_, from := w.section(section)
			_, to := w.section(section)
			if name := anyKey(w, from); name != "" {
				to[name] = from[name]
			}
		}},
		{4, "lines shifted", func() { w.lines[anyKey(w, w.files)] = w.IntN(4) }},
		{2, "a file renamed", w.renameFile},
		{1, "a file deleted", func() { delete(w.files, anyKey(w, w.files)) }},
		{2, "a file half written", func() { w.cut = anyKey(w, w.files) }},
		{3, "the file whole", func() { w.cut = "" }},
		{5, "a file beside", w.editBeside},
		{2, "a secret", w.editSecret},
		{5, "the platform", w.editPlatform},
		{2, "a sidecar", w.editSidecars},
		{1, "nothing", func() {}},
	}
	total := 0
	for _, e := range edits {
		total += e.often
	}
	n := w.IntN(total)
	for _, e := range edits {
		if n -= e.often; n < 0 {
			e.do()
			return e.name
		}
	}
	return ""
}

// entry is one of a section.
func (w *world) entry(section string) (name string, e object) {
	_, entries := w.section(section)
	name = anyKey(w, entries)
	e, _ = entries[name].(object)
	return name, e
}

func (w *world) change(section, kind string) {
	if _, e := w.entry(section); e != nil {
		w.set(e, kind)
	}
}

func (w *world) remove(section string) {
	_, entries := w.section(section)
	delete(entries, anyKey(w, entries))
}

func (w *world) rename(section string) {
	_, entries := w.section(section)
	if name := anyKey(w, entries); name != "" {
		w.number++
		entries[fmt.Sprintf("n%d", w.number)] = entries[name]
		delete(entries, name)
	}
}

func (w *world) move() {
	section := w.pick("routes", "services").(string)
	_, from := w.section(section)
	_, to := w.section(section)
	if name := anyKey(w, from); name != "" && to[name] == nil {
		to[name] = from[name]
		delete(from, name)
	}
}

func (w *world) renameFile() {
	if name := anyKey(w, w.files); name != "" {
		w.number++
		w.files[fmt.Sprintf("f%d.yaml", w.number)] = w.files[name]
		delete(w.files, name)
	}
}

func (w *world) editBeside() {
	switch w.IntN(8) {
	case 0:
		w.beside["page.html"] = fmt.Appendf(nil, "hello %d", w.IntN(9))
	case 1:
		delete(w.beside, "page.html")
	case 2:
		delete(w.beside, "s.endpoints")
	case 3:
		w.beside["ca.pem"] = w.secrets["other.crt"]
	case 4:
		w.beside["ca.pem"] = w.secrets["ca.crt"]
	case 5:
		w.beside["other.txt"] = fmt.Appendf(nil, "%d", w.IntN(9))
	default:
		w.beside["s.endpoints"] = fmt.Appendf(nil, "127.0.0.1:%d\n", 9000+w.IntN(9))
	}
}

func (w *world) editSecret() {
	switch w.IntN(5) {
	case 0:
		delete(w.secrets, "edge.crt")
	case 1:
		w.secrets["edge.crt"], w.secrets["edge.key"] = w.secrets["other.crt"], w.secrets["other.key"]
	case 2:
		w.secrets["key"] = fmt.Appendf(nil, "lgn_abcdefghj%d_0123456789abcdefghjkmnpqrs", 2+w.IntN(8))
	case 3:
		w.secrets["word"] = fmt.Appendf(nil, "word %d", w.IntN(9))
	default:
		w.secrets["ca.crt"] = slices.Concat(w.secrets["ca.crt"], w.secrets["other.crt"])[:len(w.secrets["ca.crt"])]
	}
}

// editPlatform changes what is neither a route nor a service.
func (w *world) editPlatform() {
	section := w.pick("gateways", "auth", "plans", "consumers", "rateLimits").(string)
	name, e := w.entry(section)
	if e == nil {
		return
	}
	switch {
	case w.IntN(8) == 0:
		w.remove(section)
	case section == "gateways":
		if w.IntN(2) == 0 {
			e["defaults"] = maps.Collect(func(yield func(string, any) bool) {
				set := object{}
				w.set(set, "route")
				for key, value := range set {
					yield(key, value)
				}
			})
		} else if listeners, ok := e["listeners"].(object); ok {
			listeners[w.pick("web", "redis", "http").(string)] = object{"port": 1000 + w.IntN(3), "protocol": w.pick("HTTP", "TCP", "TLS")}
		}
	case section == "auth" && e["jwt"] != nil:
		e["jwt"].(object)["headers"] = object{w.pick("x-user", "x-a", "x-b").(string): "sub"}
	case section == "auth":
		w.files[anyKey(w, w.files)]["auth"] = object{name + "2": e}
	case section == "plans":
		e["rate"] = fmt.Sprintf("%d/second", 1+w.IntN(9))
	case section == "consumers":
		e["plan"] = w.pick("free", "gold", "none")
	default:
		e["descriptors"] = []any{object{"key": w.pick("a", "b"), "rate": "6/second"}}
	}
}

func (w *world) editSidecars() {
	_, sidecars := w.section("sidecars")
	name := w.service()
	switch {
	case len(sidecars) > 0 && w.IntN(3) == 0:
		delete(sidecars, anyKey(w, sidecars))
	default:
		s := object{
			"certificate": "edge", "ca": object{"secret": "ca"},
			"outbound": object{"port": 15001, "services": []any{w.service()}},
		}
		if w.IntN(2) == 0 {
			s["app"], s["inbound"] = "127.0.0.1:8081", object{"port": 15006, "peers": []any{"edge", "inner"}}
		}
		sidecars[name] = s
	}
}

// TestLoadingAgainCountsAllExpressionsOfAFile has a file grow by one expression at a time: what it may ask for together
// holds however it came to that.
func TestLoadingAgainCountsAllExpressionsOfAFile(t *testing.T) {
	t.Parallel()
	lang := feature.Language()
	ld, refused := lang.NewLoader(), 0
	text := "services: {s: {dns: 's:80'}}\nroutes:\n"
	for i := range 80 {
		text += fmt.Sprintf("  r%[1]d: {hostnames: [a.test], match: {path: /%[1]d}, backends: {s: 1}, rateLimit: {rate: 1/minute, by: {cel: \"%[1]d == 0 %[2]s\"}}}\n",
			i, strings.Repeat("|| request.path == 'a' ", 40))
		files := policy.Files{
			"edge.yaml": []byte("gateways: {edge: {listeners: {http: {port: 10000}}}}\n"), "team.yaml": []byte(text),
		}
		got, problems := ld.Load(files)
		want, wanted := lang.Load(files)
		if (got == nil) != (want == nil) || fmt.Sprint(problems) != fmt.Sprint(wanted) {
			t.Fatalf("%d expressions: got %.300v, want %.300v", i+1, problems, wanted)
		}
		if want == nil {
			refused++
		}
	}
	if refused == 0 || refused == 80 {
		t.Errorf("%d of 80 were refused: this tells nothing", refused)
	}
}

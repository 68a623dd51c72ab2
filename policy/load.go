package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Language is the keys that policy files may use.
type Language struct {
	kinds       []*Kind
	byKey       map[string][]*Kind
	secrets     SecretSource // nil: none are looked up
	secretKinds []SecretKind // that are looked up; none: all
}

// New returns the language of these kinds. Kinds of one key stand in different places; it panics when two of them have
// a key and a place in common.
func New(kinds ...*Kind) *Language {
	l := &Language{kinds: slices.Clone(kinds), byKey: make(map[string][]*Kind)}
	slices.SortFunc(l.kinds, func(a, b *Kind) int { return strings.Compare(a.Key, b.Key) })
	for _, k := range l.kinds {
		if l.at(k.Key, k.Places) != nil {
			panic("policy: the key " + k.Key + " is defined twice")
		}
		l.byKey[k.Key] = append(l.byKey[k.Key], k)
	}
	return l
}

// at returns the kind of the key that may stand at one of the places.
func (l *Language) at(key string, places Place) *Kind {
	for _, k := range l.byKey[key] {
		if k.Places&places != 0 {
			return k
		}
	}
	return nil
}

// places is where the key may stand at all.
func (l *Language) places(key string) Place {
	var all Place
	for _, k := range l.byKey[key] {
		all |= k.Places
	}
	return all
}

// Kinds returns the keys of the language, sorted by name.
func (l *Language) Kinds() []*Kind { return l.kinds }

// Load reads files into a model. The model is nil when there is any problem that is not a warning.
func (l *Language) Load(files Files) (*Model, Problems) {
	return l.begin(files, nil).whole(make(trees))
}

// begin makes a load of files, with the secrets to take instead of what their source has.
func (l *Language) begin(files Files, kept map[string]*Secret) *loader {
	ld := &loader{
		reporter: reporter{seen: make(map[told]*Problem), perFile: make(map[tally]int), shown: make(map[bool]int)},
		lang:     l, files: files, model: &Model{Bound: make(map[*Gateway][]*BoundRoute)},
		raw:      make(map[string]map[string]*rawEntry),
		blocks:   make(map[string]block),
		sorted:   make(map[string][]string),
		gateways: make(map[string]*gatewayLayers),
		services: make(map[string]*serviceLayer),
		routes:   make(map[string]*routeLayer),
		merged:   make(map[mergeKey]*mergedSet),
		worked:   make(map[work]bool),
		spent:    make(map[string]int),
		once:     make(map[onceKey]*once),
		vault:    make(vault),
		kept:     kept,
	}
	ld.common = &unit{}
	ld.unit, ld.met = ld.common, &ld.common.met
	return ld
}

// whole loads all files; those that known has are parsed already.
func (l *loader) whole(known trees) (*Model, Problems) {
	l.read(known)
	l.stage = decoding
	l.names()
	l.decodeEntries()
	l.stage = resolving
	l.resolve()
	problems := l.done()
	problems.hide(l.files)
	if problems.HasErrors() {
		return nil, problems
	}
	l.book = newBook(l)
	l.model.Secrets = l.book.secretsOf(l.vault)
	l.model.Files = l.book.fileNames()
	l.model.Revision = l.digest.of(l.files, l.book.files)
	return l.model, problems
}

// sections in the order that a reader wants them.
var sections = []string{"gateways", "sidecars", "services", "routes", "auth", "consumers", "plans", "rateLimits"}

// rawEntry is one entry before it is decoded.
type rawEntry struct {
	key, value *Node
	load       int // that has read it: entries of one load keep all of their file in memory
}

// block is the entries that one file has, by section.
type block map[string][]*rawEntry

// loader is one load on its way, and what is kept of it for the next one.
type loader struct {
	reporter
	lang       *Language
	files      Files
	model      *Model
	number     int // of the load
	values     int // in all files, about
	bulk       bulk
	base       *loader                         // the load that this one goes on from; nil for one of all files
	raw        map[string]map[string]*rawEntry // by section and name; nil for one that base has and this load has not
	blocks     map[string]block                // by file
	unreadable bool                            // the entries of some file are not known
	sorted     map[string][]string             // names by section, for hints

	gateways map[string]*gatewayLayers
	services map[string]*serviceLayer // nil for one that base has and this load has not
	routes   map[string]*routeLayer   // the same
	expanded []*routeLayer            // of the section sidecars

	endpointsTold int // of all services so far
	calls         int // of all sidecars so far

	merged map[mergeKey]*mergedSet
	worked map[work]bool // expressions that were looked at, and by file what that cost
	spent  map[string]int
	checks []*Check // that wait for their turn
	last   []*Check // that wait until the routes are checked
	ran    []*Check // those that told or met something
	queued int
	once   map[onceKey]*once // what checks and files share

	vault vault
	kept  map[string]*Secret

	unit   *unit // that is being done, and what is noted of what is being done
	met    **met
	common *unit
	early  Problems // warnings that were told before any check
	odd    bool     // something was told that would not be told again, so that the next load has to be whole
	steps  int      // that checks have taken, see [Check.Spend]
	hosts  map[hostKey]*host
	book   *book
	digest digest
}

// entry gives an entry before it is decoded, nil where there is none.
func (l *loader) entry(section, name string) *rawEntry {
	e, ok := l.raw[section][name]
	if !ok && l.base != nil {
		return l.base.raw[section][name]
	}
	return e
}

// service gives a service on its way, nil where there is none.
func (l *loader) service(name string) *serviceLayer {
	s, ok := l.services[name]
	if !ok && l.base != nil {
		return l.base.services[name]
	}
	return s
}

// read parses the policy files and gathers their entries.
func (l *loader) read(known trees) {
	l.stage = parsing
	all := known.parse(l.files, l.policyFiles())
	for _, file := range all {
		for _, p := range file.problems {
			l.add(p.clone()) // a parsed file may be part of several loads
		}
		l.unreadable = l.unreadable || file.unreadable
	}
	l.stage = shaping
	for _, file := range all {
		for _, root := range file.roots {
			l.gather(root)
		}
	}
}

// policyFiles names the files to parse, none when they are more than can be right.
func (l *loader) policyFiles() []string {
	var names []string
	total := 0
	for name, content := range l.files {
		total += len(content)
		if IsPolicy(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	switch {
	case len(names) == 0:
		l.add(&Problem{Pos: Pos{File: "."}, Message: "there is no policy file (*.yaml, *.yml)"})
	case len(names) > MaxFiles:
		l.add(&Problem{Pos: Pos{File: "."}, Message: fmt.Sprintf("more than %d policy files", MaxFiles)})
		return nil
	case total > MaxTotal:
		l.add(&Problem{Pos: Pos{File: "."}, Message: fmt.Sprintf("the files are larger than %d MiB together", MaxTotal>>20)})
		return nil
	}
	if l.values = l.files.values(names); l.values > maxAllValues {
		l.add(&Problem{Pos: Pos{File: "."}, Message: fmt.Sprintf("more than about %d values in all files", maxAllValues)})
		return nil
	}
	return names
}

// gather takes the entries of one document.
func (l *loader) gather(root *Node) {
	for i, key := range root.Keys {
		if l.full(root.Pos.File) {
			return
		}
		section := root.Items[i]
		if !slices.Contains(sections, key.Text) {
			p := l.reportKey(key, "unknown section %s", quote(key.Text))
			p.Hint = cmp.Or(translated(key.Text, sections), hint(key.Text, sections))
			if places := l.lang.places(key.Text); places != 0 {
				p.Hint = quote(key.Text) + " stands " + places.where()
			}
			continue
		}
		if section.Kind == Null {
			continue
		}
		if section.Kind != Map {
			l.report(section, "", false, "want a map of names, got %s", section.shape()).
				Hintf("the name of an entry is its key: write %s: {NAME: {…}}, without a -", key.Text)
			continue
		}
		if l.raw[key.Text] == nil {
			l.raw[key.Text] = make(map[string]*rawEntry, len(section.Keys))
		}
		if l.blocks[root.Pos.File] == nil {
			l.blocks[root.Pos.File] = make(block)
		}
		for j, name := range section.Keys {
			l.take(key.Text, name, section.Items[j])
		}
	}
}

func (l *loader) take(section string, name, value *Node) {
	if first := l.raw[section][name.Text]; first != nil {
		l.reportKey(name, "the %s %s is defined twice", singular(section), quote(name.Text)).
			also(first.key.Pos).Hintf("the other one stands at %s: rename or remove one of them", first.key.Pos)
		return
	}
	e := &rawEntry{name, value, l.number}
	l.raw[section][name.Text] = e
	of := l.blocks[name.Pos.File]
	of[section] = append(of[section], e)
	l.checkName(name)
}

const maxName = 63

// checkName holds entry names to what Envoy's stats, DNS and file names take as they are.
func (l *loader) checkName(key *Node) {
	name := key.Text
	ok := len(name) <= maxName && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-.") == "" &&
		strings.Trim(name[:1]+name[len(name)-1:], "-.") == name[:1]+name[len(name)-1:]
	for i := range len(name) {
		c := name[i]
		ok = ok && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '.')
	}
	if ok {
		return
	}
	p := l.reportKey(key, "%s can't be a name", quote(name))
	p.Hintf("a name is up to %d of a-z, 0-9, - and ., and begins and ends with a letter or digit", maxName)
}

// entriesOf gives the entries of a section by name.
func (l *loader) entriesOf(section string) []*rawEntry {
	entries := make([]*rawEntry, 0, len(l.raw[section]))
	for _, name := range l.namesOf(section) {
		entries = append(entries, l.raw[section][name])
	}
	return entries
}

// names puts all entries into the model, still empty, so that checks can see who is there.
func (l *loader) names() {
	for _, e := range l.entriesOf("gateways") {
		g := &Gateway{Entry: e.entry()}
		l.model.Gateways = append(l.model.Gateways, g)
		l.gateways[g.Name] = &gatewayLayers{gateway: g, raw: e}
	}
	for _, e := range l.entriesOf("services") {
		l.model.Services = append(l.model.Services, l.nameService(e).service)
	}
	for _, e := range l.entriesOf("routes") {
		l.model.Routes = append(l.model.Routes, l.nameRoute(e).route)
	}
	for _, e := range l.entriesOf("auth") {
		l.model.Auth = append(l.model.Auth, &Auth{Entry: e.entry()})
	}
	for _, e := range l.entriesOf("consumers") {
		l.model.Consumers = append(l.model.Consumers, &Consumer{Entry: e.entry()})
	}
	for _, e := range l.entriesOf("plans") {
		l.model.Plans = append(l.model.Plans, &Plan{Entry: e.entry()})
	}
	for _, e := range l.entriesOf("rateLimits") {
		l.model.Domains = append(l.model.Domains, &Domain{Entry: e.entry()})
	}
}

func (l *loader) nameService(e *rawEntry) *serviceLayer {
	s := &serviceLayer{service: &Service{Entry: e.entry()}, raw: e}
	s.unit = unit{rank: ofServices, name: s.service.Name, service: s.service}
	l.services[s.service.Name] = s
	return s
}

func (l *loader) nameRoute(e *rawEntry) *routeLayer {
	r := &routeLayer{route: &Route{Entry: e.entry()}, raw: e}
	r.unit = unit{rank: ofRoutes, name: r.route.Name, route: r.route}
	l.routes[r.route.Name] = r
	return r
}

func (e *rawEntry) entry() Entry { return Entry{Name: e.key.Text, Pos: e.key.Pos, Node: e.value} }

// decodeEntries reads every entry on its own.
func (l *loader) decodeEntries() {
	l.common.rank = ofGateways
	for _, g := range l.model.Gateways {
		l.decodeGateway(l.gateways[g.Name])
	}
	for _, s := range l.model.Services {
		of := l.services[s.Name]
		l.within(&of.unit, func() { l.decodeService(of) })
	}
	l.common.rank = ofCommon
	for _, a := range l.model.Auth {
		l.decodeAuth(a, l.raw["auth"][a.Name].value)
	}
	for _, c := range l.model.Consumers {
		l.layer(&c.Entry, l.raw["consumers"][c.Name].value, &struct{}{}, InConsumer)
	}
	for _, p := range l.model.Plans {
		l.decodePlan(p, l.raw["plans"][p.Name].value)
	}
	for _, d := range l.model.Domains {
		l.decodeDomain(d, l.raw["rateLimits"][d.Name].value)
	}
	for _, r := range l.model.Routes {
		of := l.routes[r.Name]
		l.within(&of.unit, func() { l.decodeRoute(of) })
	}
	l.decodeSidecars()
	for _, p := range l.problems { // warnings alone, where anything is kept of the load
		l.early = append(l.early, p.clone())
	}
	l.runAll()
}

func (l *loader) decodeAuth(a *Auth, n *Node) {
	written := l.layer(&a.Entry, n, &struct{}{}, InAuth)
	if n.Kind == Map && len(written.sets) != 1 && len(written.sets) == len(n.Keys) {
		l.report(n, "", false, "want exactly one way to tell who calls, got %d", len(n.Keys)).
			Hintf("%s", hint("", l.lang.keysOf(InAuth)))
	}
}

func (l *loader) decodeDomain(d *Domain, n *Node) {
	if l.layer(&d.Entry, n, &struct{}{}, InDomain); n.Kind == Map && len(n.Keys) == 0 {
		l.report(n, "", false, "the domain %s says nothing of what may be asked for", quote(d.Name)).
			Hintf("%s", hint("", l.lang.keysOf(InDomain)))
	}
}

func (l *loader) decodePlan(p *Plan, n *Node) {
	if l.layer(&p.Entry, n, &struct{}{}, InPlan); n.Kind == Map && len(n.Keys) == 0 {
		l.report(n, "", false, "the plan %s says nothing of what may be used", quote(p.Name)).
			Hintf("%s", hint("", l.lang.keysOf(InPlan)))
	}
}

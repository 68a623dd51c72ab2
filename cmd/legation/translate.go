package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// translation turns configuration files of envoyproxy/ratelimit into the section rateLimits.
type translation struct {
	domains  []*domainText
	problems []string
	file     string
	found    bool // a domain in the file
}

// domainText is one domain of the output.
type domainText struct {
	name        string
	descriptors *yaml.Node
	head        string // the comment before it
}

// ownDomain is what the Envoys ask with that get their policy from here.
const ownDomain = "legation"

// add reads a file, which may hold several documents.
func (t *translation) add(file string, text []byte) {
	t.file = file
	loader, err := yaml.NewLoader(bytes.NewReader(text))
	if err != nil {
		t.problems = append(t.problems, fmt.Sprintf("%s: %v", file, err))
		return
	}
	t.found = false
	defer func() {
		if !t.found && len(t.problems) == 0 {
			t.problems = append(t.problems, file+": holds no domain")
		}
	}()
	for {
		var doc yaml.Node
		switch err := loader.Load(&doc); {
		case errors.Is(err, io.EOF):
			return
		case err != nil:
			t.problems = append(t.problems, fmt.Sprintf("%s: %v", file, err))
			return
		}
		if len(doc.Content) == 1 {
			t.domain(doc.Content[0], doc.HeadComment)
		}
	}
}

func (t *translation) tell(n *yaml.Node, format string, args ...any) {
	t.problems = append(t.problems, fmt.Sprintf("%s:%d:%d: %s", t.file, n.Line, n.Column, fmt.Sprintf(format, args...)))
}

func (t *translation) domain(n *yaml.Node, head string) {
	fields := t.fields(n, "domain", "descriptors")
	if fields["domain"] == nil {
		t.tell(n, "want the key domain")
		return
	}
	name := fields["domain"].value.Value
	if name == ownDomain {
		t.tell(fields["domain"].value, "the Envoys of this system ask with the domain %q: give it another name, here and in Envoy's filter", name)
	}
	i := slices.IndexFunc(t.domains, func(d *domainText) bool { return d.name == name })
	if t.found = true; i < 0 {
		i = len(t.domains)
		t.domains = append(t.domains, &domainText{
			name: name, descriptors: sequence(), head: join(head, fields["domain"].key.HeadComment, n.HeadComment),
		})
	}
	if list := fields["descriptors"]; list != nil {
		d := t.domains[i].descriptors
		d.Content = append(d.Content, t.descriptors(list.value).Content...)
	}
}

// field is a key and what stands under it.
type field struct{ key, value *yaml.Node }

// fields are the keys of a mapping; those that the software doesn't know are refused, as it does.
func (t *translation) fields(n *yaml.Node, known ...string) map[string]*field {
	if n.Kind != yaml.MappingNode {
		t.tell(n, "want a mapping with %s", strings.Join(known, ", "))
		return nil
	}
	all := map[string]*field{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		switch {
		case !slices.Contains(known, key.Value):
			t.tell(key, "unknown key %q; known here are %s", key.Value, strings.Join(known, ", "))
		case all[key.Value] != nil:
			t.tell(key, "the key %q stands here twice", key.Value)
		default:
			all[key.Value] = &field{key, resolved(n.Content[i+1])}
		}
	}
	return all
}

// resolved is what an alias stands for.
func resolved(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

const maxNesting = 32

func (t *translation) descriptors(n *yaml.Node) *yaml.Node { return t.nested(n, 0, false) }

// nested is a level of descriptors; perValue is said above, for the limits below.
func (t *translation) nested(n *yaml.Node, depth int, perValue bool) *yaml.Node {
	list := sequence()
	switch {
	case n.Kind == yaml.ScalarNode && n.Tag == "!!null":
	case n.Kind != yaml.SequenceNode:
		t.tell(n, "want a list of descriptors")
	case depth >= maxNesting:
		t.tell(n, "descriptors nest deeper than %d", maxNesting)
	default:
		for _, item := range n.Content {
			list.Content = append(list.Content, t.descriptor(resolved(item), depth, perValue))
		}
	}
	return list
}

func (t *translation) descriptor(n *yaml.Node, depth int, perValue bool) *yaml.Node {
	out := mapping()
	out.HeadComment, out.LineComment, out.FootComment = n.HeadComment, n.LineComment, n.FootComment
	f := t.fields(n, "key", "value", "rate_limit", "descriptors", "shadow_mode", "quota_mode", "detailed_metric", "value_to_metric",
		"share_threshold", "metadata")
	for _, name := range []struct{ from, to string }{{"key", "entry"}, {"value", "value"}} {
		if f[name.from] != nil && f[name.from].value.Value != "" {
			t.put(out, name.to, f[name.from])
		}
	}
	if f["key"] == nil || f["key"].value.Value == "" {
		t.tell(n, "want a key")
	}
	if f["rate_limit"] != nil {
		t.rate(out, f["rate_limit"])
	}
	below := t.flags(out, f, perValue)
	if list := f["descriptors"]; list != nil {
		if list := t.nested(list.value, depth+1, below); len(list.Content) > 0 {
			key := text("descriptors")
			key.HeadComment = f["descriptors"].key.HeadComment
			out.Content = append(out.Content, key, list)
		}
	}
	if len(out.Content) <= 8 && !has(out, "descriptors") && !has(out, "metadata") && !commented(out) {
		out.Style = yaml.FlowStyle
	}
	return out
}

// flags writes what else a descriptor says of its limit. Where there is no limit that it could mean something for, the
// software takes it and does nothing. It tells whether the limits below are told for each value.
func (t *translation) flags(out *yaml.Node, f map[string]*field, perValue bool) (below bool) {
	counts := has(out, "rate") || has(out, "quota")
	limits := counts || has(out, "unlimited") || has(out, "deny")
	said := func(key string) bool { return f[key] != nil && t.isTrue(f[key].value) }
	write := func(key string) { out.Content = append(out.Content, text(key), literal("true")) }
	switch shadow := said("shadow_mode"); {
	case shadow && counts:
		write("shadow")
	case shadow && has(out, "deny"):
		rename(out, "deny", "unlimited")
		out.HeadComment = join(out.HeadComment, "# import: 0 requests, but in shadow: nobody is refused")
	}
	if said("quota_mode") && counts {
		write("soft")
	}
	if said("share_threshold") && counts && f["value"] != nil && strings.Contains(f["value"].value.Value, "*") {
		write("shared")
	}
	detailed, named := said("detailed_metric"), said("value_to_metric")
	if limits && (detailed || named || perValue) {
		write("perValue")
	}
	if m := f["metadata"]; m != nil && limits {
		out.Content = append(out.Content, text("metadata"), m.value)
	}
	return named || perValue
}

func (t *translation) isTrue(n *yaml.Node) bool {
	var yes bool
	if err := n.Decode(&yes); err != nil {
		t.tell(n, "want true or false, got %q", n.Value)
	}
	return yes
}

// spans are the units; a week is seven days from Thursday to Thursday there, as days since 1970 count.
var spans = map[string]string{"second": "second", "minute": "minute", "hour": "hour", "day": "day", "week": "168h"}

func (t *translation) rate(out *yaml.Node, limit *field) {
	f := t.fields(limit.value, "requests_per_unit", "unit", "unlimited", "name", "replaces")
	unlimited := f["unlimited"] != nil && t.isTrue(f["unlimited"].value)
	unit := ""
	if f["unit"] != nil {
		unit = strings.ToLower(f["unit"].value.Value)
	}
	number := uint64(0)
	if n := f["requests_per_unit"]; n != nil {
		var err error
		if number, err = strconv.ParseUint(n.value.Value, 10, 32); err != nil {
			t.tell(n.value, "want a whole number of requests, got %q", n.value.Value)
		}
	}
	add := func(key string, value *yaml.Node) { out.Content = append(out.Content, text(key), value) }
	switch {
	case unlimited && unit != "":
		t.tell(f["unit"].value, "an unlimited rate has no unit")
	case unlimited:
		add("unlimited", literal("true"))
	case spans[unit] == "" && unit != "month" && unit != "year":
		t.tell(limit.value, "want a unit: second, minute, hour, day, week, month or year, got %q", unit)
	case number == 0:
		add("deny", literal("true"))
	case spans[unit] == "":
		value := literal(fmt.Sprintf("%d/%s", number, unit))
		value.LineComment = "# import: by the calendar, in UTC"
		add("quota", value)
	default:
		add("rate", literal(fmt.Sprintf("%d/%s", number, spans[unit])))
	}
	if f["name"] != nil && f["name"].value.Value != "" {
		t.put(out, "name", f["name"])
	}
	if f["replaces"] != nil {
		own := ""
		if f["name"] != nil {
			own = f["name"].value.Value
		}
		add("replaces", t.replaces(f["replaces"].value, own))
	}
}

// replaces are the names of the limits that the one called own stands in the place of.
func (t *translation) replaces(n *yaml.Node, own string) *yaml.Node {
	list := sequence()
	list.Style = yaml.FlowStyle
	if n.Kind != yaml.SequenceNode {
		t.tell(n, "want a list of names")
		return list
	}
	for _, item := range n.Content {
		name := t.fields(resolved(item), "name")["name"]
		if name == nil || name.value.Value == "" {
			t.tell(item, "want a name")
			continue
		}
		if name.value.Value == own {
			t.tell(name.value, "a limit can't replace itself")
		}
		list.Content = append(list.Content, text(name.value.Value))
	}
	return list
}

// put copies a scalar, as text whatever it looks like.
func (t *translation) put(out *yaml.Node, key string, f *field) {
	if f.value.Kind != yaml.ScalarNode {
		t.tell(f.value, "want a text under %s", key)
		return
	}
	k, v := text(key), text(f.value.Value)
	k.HeadComment, v.LineComment = f.key.HeadComment, f.value.LineComment
	out.Content = append(out.Content, k, v)
}

// policy is the file.
func (t *translation) policy() ([]byte, error) {
	section, title := mapping(), text("rateLimits")
	taken := map[string]bool{}
	for _, d := range t.domains {
		if len(d.descriptors.Content) == 0 {
			title.HeadComment = join(title.HeadComment, fmt.Sprintf("# import: the domain %q has no descriptors", d.name))
			continue
		}
		names := map[string]bool{}
		gather(d.descriptors, names)
		forget(d.descriptors, names)
		key, entry := text(entryName(d.name, taken)), mapping()
		key.HeadComment = d.head
		if key.Value != d.name {
			entry.Content = append(entry.Content, text("domain"), text(d.name))
		}
		entry.Content = append(entry.Content, text("descriptors"), d.descriptors)
		section.Content = append(section.Content, key, entry)
	}
	root := mapping()
	root.Content = append(root.Content, title, section)
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := enc.Encode(root); err != nil {
		return nil, err
	}
	return out.Bytes(), enc.Close()
}

// entryName is a name that an entry of a policy may have, near the domain's.
func entryName(domain string, taken map[string]bool) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '-', r == '.':
			return r
		case r >= 'A' && r <= 'Z':
			return r - 'A' + 'a'
		}
		return '-'
	}, domain)
	name = strings.Trim(name[:min(len(name), 60)], "-.")
	if name == "" {
		name = "domain"
	}
	unique := name
	for i := 2; taken[unique]; i++ {
		unique = name + "-" + strconv.Itoa(i)
	}
	taken[unique] = true
	return unique
}

// gather finds the names of all limits.
func gather(descriptors *yaml.Node, names map[string]bool) {
	for _, d := range descriptors.Content {
		if name := value(d, "name"); name != nil {
			names[name.Value] = true
		}
		if below := value(d, "descriptors"); below != nil {
			gather(below, names)
		}
	}
}

// forget leaves out what replaces names that isn't there: the software takes it and does nothing.
func forget(descriptors *yaml.Node, names map[string]bool) {
	for _, d := range descriptors.Content {
		if list := value(d, "replaces"); list != nil {
			for _, name := range list.Content {
				if !names[name.Value] {
					d.HeadComment = join(d.HeadComment, fmt.Sprintf("# import: no limit of this domain is called %q", name.Value))
				}
			}
			list.Content = slices.DeleteFunc(list.Content, func(name *yaml.Node) bool { return !names[name.Value] })
			if i := slices.Index(d.Content, list); len(list.Content) == 0 {
				d.Content = slices.Delete(d.Content, i-1, i+1)
			}
		}
		if below := value(d, "descriptors"); below != nil {
			forget(below, names)
		}
	}
}

// value is what stands under a key; nil: nothing.
func value(m *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(m.Content); i += 2 {
		if m.Content[i].Value == key {
			return m.Content[i+1]
		}
	}
	return nil
}

func rename(m *yaml.Node, from, to string) {
	for i := 0; i < len(m.Content); i += 2 {
		if m.Content[i].Value == from {
			m.Content[i].Value = to
		}
	}
}

func has(m *yaml.Node, key string) bool { return value(m, key) != nil }

// commented tells whether the mapping has comments inside, which need lines of their own.
func commented(m *yaml.Node) bool {
	return slices.ContainsFunc(m.Content, func(n *yaml.Node) bool { return n.HeadComment+n.LineComment+n.FootComment != "" })
}

func join(comments ...string) string {
	return strings.Join(slices.DeleteFunc(comments, func(c string) bool { return c == "" }), "\n")
}

func mapping() *yaml.Node  { return &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"} }
func sequence() *yaml.Node { return &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"} }

// text is a scalar that is a string however it looks; the encoder quotes it where it has to.
func text(s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s} }

// literal is a scalar that stands for what it looks like.
func literal(s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Value: s} }

package accesslog

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/legation/legation/policy"
	"google.golang.org/protobuf/types/known/structpb"
)

// Format is what is logged: our fields, our line, or one's own of either.
type Format struct {
	Plain  bool              // text: our line
	Text   *string           // a line of one's own
	Fields map[string]string // fields of one's own, by name
}

// The names of our formats, and the key of a line of one's own.
const (
	jsonFormat = "json"
	textFormat = "text"
)

// DecodePolicy reads json, text, {text: line} or a map of fields.
func (f *Format) DecodePolicy(d *policy.Decode, n *policy.Node) {
	switch {
	case n.Kind == policy.Map && len(n.Keys) == 1 && n.Keys[0].Text == textFormat:
		d.Decode(n.Items[0], &f.Text)
	case n.Kind == policy.Map:
		d.Decode(n, &f.Fields)
	case n.Kind == policy.Scalar && n.Text == textFormat:
		f.Plain = true
	case n.Kind == policy.Scalar && n.Text == jsonFormat:
	default:
		d.Errorf(n, "want json, text, {text: a line} or a map of fields").
			Hintf(`write {text: "%%REQ(:METHOD)%% %%RESPONSE_CODE%%"} or {status: "%%RESPONSE_CODE%%"}`)
	}
}

// PolicySchema describes the forms.
func (*Format) PolicySchema(*policy.Schemas) map[string]any {
	return map[string]any{"oneOf": []any{
		map[string]any{"enum": []string{jsonFormat, textFormat}},
		map[string]any{"type": "object", "minProperties": 1, "additionalProperties": map[string]any{"type": "string"}},
	}}
}

// Bounds of one's own format: it is gone through for each request.
const (
	maxFields = 100
	maxText   = 4 << 10 // bytes of a line or a field
)

// check holds one's own format against what Envoy knows and what may be logged.
func (f *Format) check(c *policy.Check, path string, query bool) {
	if f.Fields != nil && len(f.Fields) == 0 {
		c.Errorf(path, "name at least one field").Hintf("write format: json for ours")
	}
	if len(f.Fields) > maxFields {
		c.Errorf(path, "%d fields, more than %d", len(f.Fields), maxFields)
		return
	}
	for _, name := range slices.Sorted(maps.Keys(f.Fields)) {
		checkSubstitutions(c, path+"."+name, f.Fields[name], query)
	}
	if f.Text == nil {
		return
	}
	line := strings.TrimSuffix(*f.Text, "\n")
	if line == "" || strings.ContainsFunc(line, control) {
		c.Errorf(path+"."+textFormat, "want one line of text, without control characters")
	}
	checkSubstitutions(c, path+"."+textFormat, line, query)
}

// control tells the characters that would break a line or a terminal; a tab may part columns.
func control(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }

// defaults is our formats for one kind of what is logged.
type defaults struct {
	fields    map[string]string // name -> what Envoy puts there
	withQuery map[string]string // those that are different where queries are logged
	line      string
	body      string // the text of an OTLP record whose attributes are our fields
}

// line is the text to write, or empty where there are fields.
func (f *Format) line(query bool, d *defaults) string {
	switch {
	case f.Text != nil:
		return strings.TrimSuffix(*f.Text, "\n")
	case f.Plain && query:
		return strings.ReplaceAll(d.line, pathOnly, pathAndQuery)
	case f.Plain:
		return d.line
	}
	return ""
}

// body is the text of an OTLP record: the line, or beside our own fields a summary.
func (f *Format) body(query bool, d *defaults) string {
	if f.Fields != nil {
		return ""
	}
	return cmp.Or(f.line(query, d), d.body)
}

// fields is what to write by name, or nothing where there is a line.
func (f *Format) fields(gateway string, query bool, d *defaults) map[string]string {
	if f.Fields != nil {
		return f.Fields
	}
	if f.Plain || f.Text != nil {
		return nil
	}
	all := maps.Clone(d.fields)
	all["gateway"] = strings.ReplaceAll(gateway, "%", "%%")
	if query {
		maps.Copy(all, d.withQuery)
	}
	return all
}

// substitution is JSON rather than a text with JSON's look: Envoy escapes what clients send. It sorts the fields by name.
func (f *Format) substitution(gateway string, query bool, d *defaults) *corev3.SubstitutionFormatString {
	if line := f.line(query, d); line != "" {
		return &corev3.SubstitutionFormatString{Format: &corev3.SubstitutionFormatString_TextFormatSource{
			TextFormatSource: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: line + "\n"}},
		}}
	}
	fields := map[string]*structpb.Value{}
	for name, value := range f.fields(gateway, query, d) {
		fields[name] = structpb.NewStringValue(value)
	}
	return &corev3.SubstitutionFormatString{
		Format:          &corev3.SubstitutionFormatString_JsonFormat{JsonFormat: &structpb.Struct{Fields: fields}},
		OmitEmptyValues: true, // a field that has no value is left out, not null
	}
}

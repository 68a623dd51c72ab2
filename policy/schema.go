package policy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"reflect"
	"strconv"
	"strings"
)

// Schema is the JSON Schema (draft 2020-12) of a policy file, for editors: indented, and the same each time. It tells
// shapes; what Load also holds against a policy, such as references, no schema can say.
func (l *Language) Schema() []byte {
	s := &Schemas{lang: l, defs: make(map[string]any), names: make(map[schemaKey]string)}
	properties := make(map[string]any)
	for section, entry := range s.sections() {
		properties[section] = described(named(entry, "object", "null"), sectionDocs[section])
	}
	return s.encode("Legation policy file", map[string]any{
		"type":                 []string{"object", "null"},
		"properties":           properties,
		"additionalProperties": false,
	})
}

// encode writes the schema of a whole file, with all that it has defined.
func (s *Schemas) encode(title string, root map[string]any) []byte {
	root["$schema"], root["title"], root["$defs"] = "https://json-schema.org/draft/2020-12/schema", title, s.defs
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(root); err != nil {
		panic(fmt.Sprintf("policy: a schema is no JSON: %v", err)) // a fault of the code, not of a policy
	}
	return out.Bytes()
}

var sectionDocs = map[string]string{
	"gateways":   "the gateways by name: Envoys and what they listen on",
	"sidecars":   "the sidecars by the name of the service that each stands beside",
	"services":   "the services by name: what routes send requests to",
	"routes":     "the routes by name",
	"auth":       "the ways to tell who calls, by name",
	"consumers":  "those who call, by name",
	"plans":      "what consumers may use, by name",
	"rateLimits": "the limits of Envoys that others configure, by domain",
}

// sections gives the schema of an entry of each section.
func (s *Schemas) sections() map[string]any {
	service := s.entry("service", reflect.TypeFor[serviceDoc](), InService)
	service["oneOf"] = []any{map[string]any{"required": []string{"endpoints"}}, map[string]any{"required": []string{"dns"}}}
	auth := s.entry("auth", reflect.TypeFor[struct{}](), InAuth)
	auth["minProperties"], auth["maxProperties"] = 1, 1
	s.entry("gateway", reflect.TypeFor[gatewayDoc](), InGateway)
	s.entry("listener", reflect.TypeFor[listenerDoc](), InListener)
	s.entry("defaults", reflect.TypeFor[defaultsDoc](), InDefaults)
	route := s.entry("route", reflect.TypeFor[routeDoc](), InRoute)
	route["anyOf"] = []any{map[string]any{"required": []string{"hostnames"}}, map[string]any{"required": []string{"listeners"}}}
	sidecar := s.entry("sidecar", reflect.TypeFor[sidecarDoc](), InGateway)
	sidecar["anyOf"] = []any{map[string]any{"required": []string{"inbound"}}, map[string]any{"required": []string{"outbound"}}}
	sidecar["dependentRequired"] = map[string][]string{"inbound": {"app"}, "app": {"inbound"}}
	s.entry("inbound", reflect.TypeFor[inboundDoc](), InRoute)
	s.entry("consumer", reflect.TypeFor[struct{}](), InConsumer)
	s.entry("plan", reflect.TypeFor[struct{}](), InPlan)
	s.entry("domain", reflect.TypeFor[struct{}](), InDomain)
	entries := make(map[string]any)
	for _, section := range sections {
		name := section
		if section != "auth" {
			name = singular(section)
		}
		entries[section] = ref(name)
	}
	return entries
}

// entry defines the schema of an entry: its own keys, and those of the kinds that may stand there.
func (s *Schemas) entry(name string, t reflect.Type, place Place) map[string]any {
	object := s.object(t, false)
	properties := object["properties"].(map[string]any)
	for _, k := range s.lang.kinds {
		if k.Places&place != 0 {
			properties[k.Key] = s.kind(k, place)
		}
	}
	s.defs[name] = object
	return object
}

// kind is the schema of a setting at a place.
func (s *Schemas) kind(k *Kind, place Place) map[string]any {
	mergeable := place&Layers != 0 && k.Places&InRoute != 0
	schema := s.of(k.typ, mergeable && !k.Stacked)
	if mergeable {
		schema = orOff(schema)
	}
	summary, _, _ := strings.Cut(strings.TrimLeft(k.Doc, "# \n"), "\n")
	return described(schema, summary)
}

// Schemas collects the JSON Schema definitions of types.
type Schemas struct {
	lang   *Language
	defs   map[string]any
	names  map[schemaKey]string
	inside reflect.Type // whose PolicySchema is running
}

type schemaKey struct {
	typ   reflect.Type
	layer bool
}

// Of is the schema of the type that v points to. A PolicySchema method that asks for its own type gets its fields.
func (s *Schemas) Of(v any) map[string]any {
	if s == nil {
		return map[string]any{}
	}
	return s.of(reflect.TypeOf(v).Elem(), false)
}

var schemerType = reflect.TypeFor[Schemer]()

// of is the schema of t; in a layer, required keys may be missing and leaves may be off.
func (s *Schemas) of(t reflect.Type, layer bool) map[string]any {
	for t.Kind() == reflect.Pointer && t != nodeType {
		t = t.Elem()
	}
	ways := waysOf(t)
	layer = layer && !ways.whole
	switch {
	case t == nodeType:
		return map[string]any{}
	case reflect.PointerTo(t).Implements(schemerType) && s.inside != t:
		defer func(inside reflect.Type) { s.inside = inside }(s.inside)
		s.inside = t
		return maps.Clone(reflect.New(t).Interface().(Schemer).PolicySchema(s))
	case ways.decoder && s.inside != t:
		return map[string]any{}
	case ways.text:
		return scalarText()
	case ways.enum:
		return map[string]any{"enum": reflect.Zero(t).Interface().(Enum).Values()}
	}
	switch t.Kind() {
	case reflect.Struct:
		return s.define(t, layer)
	case reflect.Map:
		return s.mapOf(t, layer)
	case reflect.Slice:
		return map[string]any{"type": "array", "items": s.of(t.Elem(), false)}
	case reflect.String:
		return scalarText()
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.Float32, reflect.Float64:
		return map[string]any{"type": "number"}
	default:
		return integer(t)
	}
}

// scalarText is a text: what looks like a number or a truth value is taken as it is written.
func scalarText() map[string]any {
	return map[string]any{"type": []string{"string", "number", "boolean"}}
}

func integer(t reflect.Type) map[string]any {
	out := map[string]any{"type": "integer"}
	bits := t.Bits()
	if t.Kind() >= reflect.Uint {
		out["minimum"], out["maximum"] = 0, uint64(math.MaxUint64)>>(64-bits)
	} else if bits < 64 {
		out["minimum"], out["maximum"] = int64(-1)<<(bits-1), int64(1)<<(bits-1)-1
	}
	return out
}

func (s *Schemas) mapOf(t reflect.Type, layer bool) map[string]any {
	item := s.of(t.Elem(), layer)
	if layer {
		item = orOff(item)
	}
	out := map[string]any{"type": "object", "additionalProperties": item}
	if waysOf(t.Key()).enum {
		out["propertyNames"] = map[string]any{"enum": reflect.Zero(t.Key()).Interface().(Enum).Values()}
	}
	return out
}

// define puts a struct among the definitions, once, and refers to it.
func (s *Schemas) define(t reflect.Type, layer bool) map[string]any {
	if t.Name() == "" {
		return s.object(t, layer)
	}
	key := schemaKey{t, layer}
	if name, ok := s.names[key]; ok {
		return ref(name)
	}
	base := t.String()
	if layer {
		base += ".layer"
	}
	name := base
	for i := 2; s.defs[name] != nil; i++ {
		name = base + strconv.Itoa(i)
	}
	s.names[key] = name
	s.defs[name] = true // taken, while its fields may refer to it
	defer func(inside reflect.Type) { s.inside = inside }(s.inside)
	s.inside = nil
	s.defs[name] = s.object(t, layer)
	return ref(name)
}

// object is the schema of a struct's fields.
func (s *Schemas) object(t reflect.Type, layer bool) map[string]any {
	fields := fieldsOf(t)
	properties := make(map[string]any)
	for _, name := range fields.names {
		f := fields.byName[name]
		schema := s.of(f.typ, layer)
		if f.schema != "" {
			schema = s.override(f.schema, schema)
		}
		if layer {
			schema = orOff(schema)
		}
		properties[name] = described(schema, f.doc)
	}
	out := map[string]any{"type": "object", "properties": properties, "additionalProperties": false}
	if len(fields.required) > 0 && !layer {
		out["required"] = fields.required
	}
	return out
}

// override is what a type can't tell of the keys of the room itself.
func (s *Schemas) override(name string, schema map[string]any) map[string]any {
	switch name {
	case "port":
		return map[string]any{"type": "integer", "minimum": 1, "maximum": 65535}
	case "listeners":
		out := named(ref("listener"), "object")
		out["minProperties"] = 1
		return out
	case "defaults", "inbound":
		return ref(name)
	case "locked":
		return map[string]any{"type": "array", "items": map[string]any{"enum": s.lang.keysOf(InService | InRoute)}}
	case "names":
		return map[string]any{"type": "array", "minItems": 1, "uniqueItems": true, "items": map[string]any{"type": "string"}}
	case "some":
		schema["minItems"] = 1
	}
	return schema
}

// OnlyKey is the schema of a map with this one key: a form such as {file: …} of a type that has several.
func OnlyKey(key string, value map[string]any) map[string]any {
	return map[string]any{"type": "object", "properties": map[string]any{key: value}, "required": []string{key}, "additionalProperties": false}
}

func ref(name string) map[string]any { return map[string]any{"$ref": "#/$defs/" + name} }

// named is a map of entries by their names.
func named(entry any, types ...string) map[string]any {
	return map[string]any{
		"type": types, "additionalProperties": entry,
		"propertyNames": map[string]any{"pattern": "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", "maxLength": maxName},
	}
}

func orOff(schema map[string]any) map[string]any {
	return map[string]any{"anyOf": []any{schema, map[string]any{"const": "off"}}}
}

func described(schema map[string]any, doc string) map[string]any {
	if doc != "" {
		schema["description"] = doc
	}
	return schema
}

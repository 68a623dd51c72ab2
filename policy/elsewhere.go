package policy

import (
	"slices"
	"strings"
)

// What is written in place of several words.
const (
	writeServices  = `services: {orders: {endpoints: ["10.0.0.11:8080"]}}`
	writeEndpoints = `endpoints: ["10.0.0.11:8080"], or dns: orders.internal:8080`
	writeGateways  = "gateways: {edge: {listeners: {http: {port: 80}}}}"
	writeHostnames = "hostnames: [api.example.com]"
	writePath      = "match: {path: /v1}"
	writeBackends  = "backends: {orders: 1}"
	writeSettings  = "each setting under its own key: cors, headers, rateLimit, rewrite …"
)

// elsewhere is what to write in place of a word that other proxies have for something, or that stands elsewhere here. Of
// the lines of a word the first one counts whose key may stand where the word does. Words are in lower case, without - and _.
var elsewhere = map[string][]struct{ key, write string }{
	// sections
	"backends":    {{"services", writeServices}},
	"clusters":    {{"services", writeServices}},
	"upstreams":   {{"services", writeServices}},
	"entrypoints": {{"gateways", writeGateways}},
	"listeners":   {{"gateways", writeGateways}},

	// routes
	"domain":      {{"hostnames", writeHostnames}},
	"domains":     {{"hostnames", writeHostnames}},
	"host":        {{"hostnames", writeHostnames}, {"methods", "hostnames in the route, beside match"}},
	"hostnames":   {{"methods", "hostnames in the route, beside match"}},
	"hosts":       {{"hostnames", writeHostnames}, {"methods", "hostnames in the route, beside match"}},
	"location":    {{"match", writePath}},
	"method":      {{"match", "match: {methods: [GET]}"}},
	"methods":     {{"match", "match: {methods: [GET]}"}},
	"path":        {{"match", writePath}},
	"pathprefix":  {{"match", writePath}},
	"prefix":      {{"match", writePath}},
	"rule":        {{"match", "hostnames: [api.example.com], and match: {path: /v1}"}},
	"rules":       {{"match", "hostnames: [api.example.com], and match: {path: /v1}"}},
	"priority":    {{"match", "no number: the more specific route goes first, whatever the order (docs/language.md)"}},
	"cluster":     {{"backends", writeBackends}},
	"destination": {{"backends", writeBackends}},
	"proxypass":   {{"backends", writeBackends}},
	"servername":  {{"hostnames", writeHostnames}},
	"service":     {{"backends", writeBackends}},
	"services":    {{"backends", writeBackends}},
	"weight":      {{"backends", "backends: {orders-v1: 90, orders-v2: 10}"}},

	"backendrefs": {{"backends", writeBackends}},
	"matches":     {{"match", writePath}},
	"parentrefs":  {{"gateways", "gateways: [edge], where there are several; hostnames and backends beside it"}},
	"queryparams": {{"query", "query: {page: \"1\"}"}},

	// services
	"address":   {{"endpoints", writeEndpoints}},
	"addresses": {{"endpoints", writeEndpoints}},
	"nodes":     {{"endpoints", writeEndpoints}},
	"port":      {{"endpoints", writeEndpoints}},
	"servers":   {{"endpoints", writeEndpoints}},
	"targets":   {{"endpoints", writeEndpoints}},
	"upstream":  {{"backends", writeBackends}, {"services", writeServices}},
	"url":       {{"endpoints", writeEndpoints}},

	// settings
	"codes":                  {{"retryOn", "retryOn: [5xx, connect-failure], or statuses such as \"503\""}},
	"fullpath":               {{"stripQuery", "path: /new"}},
	"replacefullpath":        {{"stripQuery", "path: /new"}, {"template", "path: /new"}},
	"replaceprefix":          {{"stripQuery", "prefix: /new"}, {"template", "prefix: /new"}},
	"replaceprefixmatch":     {{"stripQuery", "prefix: /new"}, {"template", "prefix: /new"}},
	"requestheadermodifier":  {{"headers", "headers: {request: {set: {x-team: orders}}}"}},
	"requestmirror":          {{"mirror", "mirror: {orders-v2: 10%}"}},
	"requestredirect":        {{"redirect", "redirect: {scheme: https}"}},
	"responseheadermodifier": {{"headers", "headers: {response: {set: {x-team: orders}}}"}},
	"sessionname":            {{"cookie", "cookie: session-endpoint, or header: x-session"}},
	"statuscode":             {{"status", "status: 301"}},
	"type": {
		{"ignoreCase", "the path itself for a prefix, or {exact: /v1}, {regex: …} or {template: …}"},
		{"present", "the value itself for an exact match, or {regex: …} or {present: true}"},
	},
	"urlrewrite": {{"rewrite", "rewrite: {prefix: /, hostname: orders.internal}"}},
	"value": {
		{"ignoreCase", "the path itself for a prefix, or {exact: /v1}"},
		{"present", "the value itself for an exact match"},
	},
	"limits":            {{"rateLimit", "rateLimit: {rate: 100/minute, by: ip}; limits bounds what a gateway takes in"}},
	"allow":             {{"access", "access: {allow: [10.0.0.0/8]}"}},
	"certificate":       {{"clientCertificates", "certificates in the listener, beside tls"}, {"certificates", "certificates: [{secret: tls/example}]"}},
	"certificates":      {{"clientCertificates", "certificates in the listener, beside tls"}},
	"clientmaxbodysize": {{"requestBody", "requestBody: {max: 1MiB}"}},
	"deny":              {{"access", "access: {deny: [192.0.2.0/24]}"}},
	"filters":           {{"hostnames", writeSettings}},
	"gzip":              {{"compression", "compression: {algorithms: [gzip]}"}},
	"ipallowlist":       {{"access", "access: {allow: [10.0.0.0/8]}"}},
	"jwt":               {{"auth", "auth: [idp], and what idp is in the section auth"}},
	"maxbodysize":       {{"requestBody", "requestBody: {max: 1MiB}"}},
	"middlewares":       {{"hostnames", writeSettings}},
	"burst":             {{"rateLimit", "rateLimit: {rate: 100/minute, burst: 200}"}},
	"quota":             {{"rateLimit", "rateLimit: {quota: 10000/month}"}},
	"rate":              {{"rateLimit", "rateLimit: {rate: 100/minute}"}},
	"plugins":           {{"hostnames", writeSettings}},
	"response":          {{"directResponse", "directResponse: {status: 200, body: hello}"}},
	"retries":           {{"retry", "retry: {attempts: 2}"}},
	"return":            {{"directResponse", "directResponse: {status: 200, body: hello}"}},
	"session":           {{"sessionPersistence", "sessionPersistence: {cookie: session-endpoint}"}},
	"shadow":            {{"mirror", "mirror: {orders-v2: 10%}"}},
	"sticky":            {{"sessionPersistence", "sessionPersistence: {cookie: session-endpoint}"}},
	"stripprefix":       {{"rewrite", "rewrite: {prefix: /}"}},
	"strippath":         {{"rewrite", "rewrite: {prefix: /}"}},
	"websocket":         {{"upgrades", "upgrades: [websocket]"}},
	"websockets":        {{"upgrades", "upgrades: [websocket]"}},
}

// translated is what to write in place of a word of other proxies; "" where none of candidates says the same.
func translated(name string, candidates []string) string {
	word := strings.ToLower(strings.NewReplacer("-", "", "_", "").Replace(name))
	for _, e := range elsewhere[word] {
		if slices.Contains(candidates, e.key) {
			return "write " + e.write
		}
	}
	return ""
}

package app

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
)

// Echo is a sample upstream: it answers every request with what it received, and its own name.
type Echo struct {
	Name    string
	Address string
}

// echoed is what an [Echo] answers.
type echoed struct {
	Service string            `json:"service"`
	Method  string            `json:"method"`
	Host    string            `json:"host"`
	Path    string            `json:"path"`
	Headers map[string]string `json:"headers"`
	Body    string            `json:"body,omitempty"`
}

// ServeHTTP answers with what was received. Credentials are cut: an answer that is pasted somewhere gives nothing away.
func (e Echo) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(io.LimitReader(r.Body, 64<<10))
	headers := make(map[string]string, len(r.Header))
	for name, values := range r.Header {
		headers[strings.ToLower(name)] = strings.Join(values, ", ")
	}
	for _, name := range []string{"authorization", "cookie", "proxy-authorization", "x-api-key"} {
		if _, ok := headers[name]; ok {
			headers[name] = "(received, not shown)"
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Service", e.Name)
	out := json.NewEncoder(w)
	out.SetEscapeHTML(false)
	out.SetIndent("", "  ")
	_ = out.Encode(echoed{
		Service: e.Name, Method: r.Method, Host: r.Host, Path: r.URL.RequestURI(), Headers: headers, Body: string(body),
	})
}

// Run listens and answers until ctx ends.
func (e Echo) Run(ctx context.Context) error {
	l, err := listen("sample upstream "+e.Name, "--port, or in the policy", e.Address)
	if err != nil {
		return err
	}
	return e.serve(ctx, l)
}

func (e Echo) serve(ctx context.Context, l net.Listener) error {
	return serveHTTP(ctx, l, e)
}

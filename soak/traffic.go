package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// upstream is a service: it answers what it was asked for, host and path.
func (t *trial) upstream() (address string, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	s := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Host+r.URL.Path)
	})}
	context.AfterFunc(t.ctx, func() { _ = s.Close() })
	go func() { _ = s.Serve(l) }()
	return l.Addr().String(), nil
}

// page is a request that upstream answers.
type page struct {
	host, path, token string
}

// traffic asks without pause, four workers over HTTP/1.1 and one over HTTP/2, through one Envoy, and looks at every answer.
type traffic struct {
	url   string
	pause time.Duration // between the requests of a worker
	stop  context.CancelFunc
	done  sync.WaitGroup

	mu   sync.Mutex // guards what follows
	good uint64
	bad  map[string]uint64
}

func (t *trial) traffic(port int, pause time.Duration, pages []page) *traffic {
	x := &traffic{url: fmt.Sprintf("http://127.0.0.1:%d", port), pause: pause, bad: map[string]uint64{}}
	ctx, cancel := context.WithCancel(t.ctx)
	x.stop = cancel
	for i := range 5 {
		protocols := new(http.Protocols)
		protocols.SetHTTP1(i < 4)
		protocols.SetUnencryptedHTTP2(i == 4)
		c := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{Protocols: protocols}}
		x.done.Go(func() {
			defer c.CloseIdleConnections()
			for n := i; ctx.Err() == nil; n++ {
				x.note(ctx, x.ask(c, pages[n%len(pages)]))
				select {
				case <-ctx.Done():
				case <-time.After(x.pause):
				}
			}
		})
	}
	return x
}

// ask asks once. It isn't cut off when the traffic ends.
func (x *traffic) ask(c *http.Client, p page) error {
	r, err := http.NewRequest(http.MethodGet, x.url+p.path, nil)
	if err != nil {
		return err
	}
	r.Host = p.host
	if p.token != "" {
		r.Header.Set("Authorization", "Bearer "+p.token)
	}
	a, err := c.Do(r)
	if err != nil {
		return err
	}
	defer a.Body.Close()
	body, err := io.ReadAll(a.Body)
	if err == nil && (a.StatusCode != http.StatusOK || string(body) != p.host+p.path) {
		err = fmt.Errorf("%s%s: status %d: %.60q", p.host, p.path, a.StatusCode, body)
	}
	return err
}

func (x *traffic) note(ctx context.Context, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case err == nil:
		x.good++
	case ctx.Err() == nil || !strings.Contains(err.Error(), "context canceled"):
		x.bad[err.Error()]++
	}
}

// end stops it, and tells what was asked for and what failed.
func (x *traffic) end() (good, failed uint64, why string) {
	x.stop()
	x.done.Wait()
	for _, reason := range slices.Sorted(maps.Keys(x.bad)) {
		failed += x.bad[reason]
		if len(why) < 500 {
			why += fmt.Sprintf(", %d × %s", x.bad[reason], reason)
		}
	}
	return x.good, failed, why
}

package rig

import (
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Proxy passes TCP connections on, and does them harm when told.
type Proxy struct {
	listener net.Listener
	target   string
	delay    atomic.Int64 // of what the server says, in ns
	swallow  atomic.Bool
	lose     atomic.Int64 // of a thousand answers

	mu    sync.Mutex // guards conns
	conns map[net.Conn]bool
}

// Proxy listens before a server.
func (r *Rig) Proxy(target string) (*Proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{listener: l, target: target, conns: map[net.Conn]bool{}}
	go p.accept()
	return p, nil
}

// Address is where it listens.
func (p *Proxy) Address() string { return p.listener.Addr().String() }

// Delay holds back all that the server says from now on, by d.
func (p *Proxy) Delay(d time.Duration) { p.delay.Store(int64(d)) }

// Swallow takes what comes, from both sides, and passes nothing on.
func (p *Proxy) Swallow(on bool) { p.swallow.Store(on) }

// Lose breaks the connection in the place of passing an answer on, so many times in a thousand: the server has done what
// it was asked, and nobody hears of it.
func (p *Proxy) Lose(perMille int) { p.lose.Store(int64(perMille)) }

// Close ends all connections.
func (p *Proxy) Close() {
	p.listener.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.Close()
	}
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		go func() {
			server, err := net.Dial("tcp", p.target)
			if err != nil {
				client.Close()
				return
			}
			p.keep(client, server)
			go p.pass(server, client, false)
			p.pass(client, server, true)
		}()
	}
}

func (p *Proxy) keep(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		p.conns[c] = true
	}
}

// pass passes on what from says until one of the two ends.
func (p *Proxy) pass(to, from net.Conn, answers bool) {
	defer func() {
		to.Close()
		from.Close()
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.conns, from)
	}()
	b := make([]byte, 64<<10)
	for {
		n, err := from.Read(b)
		if err != nil {
			return
		}
		if p.swallow.Load() {
			continue
		}
		if answers {
			time.Sleep(time.Duration(p.delay.Load()))
			if rand.Int64N(1000) < p.lose.Load() {
				return
			}
		}
		if _, err := to.Write(b[:n]); err != nil {
			return
		}
	}
}

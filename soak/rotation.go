package main

import (
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/legation/legation/bench/load"
	"github.com/legation/legation/bench/rig"
)

// rotates is how often the issuer takes another key.
const rotates = 10 * time.Second

// K.
func rotation(t *trial) error {
	keys, err := newKeyring(7)
	if err != nil {
		return err
	}
	defer keys.server.Close()
	r := rig.Route{Name: "auth", Auth: "[idp]"}
	keys.publish(0, 2)
	all, addresses, err := t.replicas(2, rig.Policy{Auth: rig.EntryAt(keys.url), Routes: []rig.Route{r}}, "")
	if err != nil {
		return err
	}
	if err := keys.sign(r.Rule()); err != nil {
		return err
	}
	for _, l := range all {
		if err := rig.Until(t.ctx, 10*time.Second, "the first keys", func() error {
			if n, err := l.Metric("legation_auth_jwks_fetches_total", `result="changed"`); err != nil || n == 0 {
				return fmt.Errorf("%g fetches (%v)", n, err)
			}
			return nil
		}); err != nil {
			return err
		}
	}
	asked := load.Checks(keys.messages[0])
	asked.Body = keys.message
	run, err := load.Start(load.Options{Addresses: addresses, Connections: len(addresses), Rate: 300, Call: asked})
	if err != nil {
		return err
	}
	defer run.Stop()
	for _, phase := range []struct {
		name      string
		rotations int
		ahead     int // keys that are published before they are used
		takes     time.Duration
		held      bool
	}{
		{"published before its first use", 2, 2, 0, true},
		{"published at its first use", 3, 0, 0, true},
		{"published at its first use, in an answer that takes 500 ms", 1, 0, 500 * time.Millisecond, false},
	} {
		keys.takes.Store(int64(phase.takes))
		run.Take()
		fetched := keys.fetches.Load()
		for range phase.rotations {
			keys.rotate(phase.ahead)
			if err := t.sleep(rotates); err != nil {
				return err
			}
		}
		got := run.Take()
		text := fmt.Sprintf("a key %s: %d answers, p99 %.1f ms, at most %.1f ms, %d refused, %d failed, %d fetches by %d replicas in %d s", phase.name, got.Answered(),
			millis(got.Latency.Quantile(.99)), millis(got.Latency.Quantile(1)), got.Refused, got.Failures(), keys.fetches.Load()-fetched, len(all), phase.rotations*int(rotates.Seconds()))
		if phase.held {
			t.hold(got.Refused == 0 && got.Failures() == 0 && got.Allowed > 0, "%s", text)
		} else {
			t.say("%s", text)
		}
	}
	return nil
}

// keyring is an issuer's keys, of which it signs with one at a time.
type keyring struct {
	issuers  []*rig.Issuer
	messages [][][]byte // of tokens, by key
	url      string
	server   *http.Server
	set      atomic.Pointer[string]
	current  atomic.Int64 // the key that signs
	takes    atomic.Int64 // the time of an answer
	fetches  atomic.Int64
}

func newKeyring(n int) (*keyring, error) {
	k := new(keyring)
	for i := range n {
		issuer, err := rig.NewIssuerKey(fmt.Sprint("key-", i))
		if err != nil {
			return nil, err
		}
		k.issuers = append(k.issuers, issuer)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	k.url = "http://" + l.Addr().String() + "/keys"
	k.server = &http.Server{Handler: k, ReadHeaderTimeout: time.Minute}
	go func() { _ = k.server.Serve(l) }()
	return k, nil
}

// ServeHTTP answers with the set that is published.
func (k *keyring) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	k.fetches.Add(1)
	set := *k.set.Load()
	time.Sleep(time.Duration(k.takes.Load()))
	_, _ = fmt.Fprint(w, set)
}

// sign makes calls with tokens by all keys.
func (k *keyring) sign(rule string) error {
	for _, issuer := range k.issuers {
		var messages [][]byte
		for i := range 100 {
			token, err := issuer.Token(fmt.Sprintf("user-%d", i))
			if err != nil {
				return err
			}
			message, err := rig.Check(rule, token, "key")
			if err != nil {
				return err
			}
			messages = append(messages, message)
		}
		k.messages = append(k.messages, messages)
	}
	return nil
}

// message is a call with a token by the key that signs now.
func (k *keyring) message(b []byte, number uint64) []byte {
	messages := k.messages[k.current.Load()]
	return append(b, messages[number%uint64(len(messages))]...)
}

// publish has the set hold a key, the one before it, and those that come next.
func (k *keyring) publish(current, ahead int) {
	set := rig.KeySet(k.issuers[max(0, current-1):min(current+ahead+1, len(k.issuers))])
	k.set.Store(&set)
}

// rotate takes the next key.
func (k *keyring) rotate(ahead int) {
	next := int(k.current.Load()) + 1
	k.publish(next, ahead)
	k.current.Store(int64(next))
}

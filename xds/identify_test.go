package xds

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// ended returns the code that the stream ended with, once nothing moves.
func (e *envoy) ended() codes.Code {
	synctest.Wait()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.err == nil {
		return codes.OK
	}
	return status.Code(e.err)
}

// A stream ends with what its Envoy has shown, a little before, so that not all come back at once.
func TestStreamEndsWithItsCredentials(t *testing.T) {
	for _, protocol := range []Protocol{Delta, SotW} {
		t.Run(string(protocol), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				until := time.Now().Add(time.Hour)
				p := start(t, Options{Identify: func(context.Context) (Identity, error) {
					return Identity{Groups: []string{"edge"}, Until: until}, nil
				}})
				p.Publish(usual(t, "1"))
				e := p.envoy(t, protocol, "e")
				e.askUsual()
				time.Sleep(time.Hour - 31*time.Second)
				if got := e.ended(); got != codes.OK {
					t.Fatalf("ended early, with %s", got)
				}
				time.Sleep(31 * time.Second)
				if got := e.ended(); got != codes.PermissionDenied {
					t.Errorf("got %s at the end, want PermissionDenied", got)
				}
				if got := p.Status(); len(got) != 0 {
					t.Errorf("status still lists %v", got)
				}
			})
		})
	}
}

func TestLifetime(t *testing.T) {
	t.Parallel()
	for _, d := range []time.Duration{-time.Hour, 0, time.Nanosecond, 5 * time.Second, time.Hour, 1000 * time.Hour} {
		least := max(d, 0) - min(max(d, 0)/10, 30*time.Second)
		for range 100 {
			if got := lifetime(d); got < least || got > max(d, 0) {
				t.Fatalf("of %s: got %s, want from %s to %s", d, got, least, max(d, 0))
			}
		}
	}
}

// Who may no longer have a group loses the streams that it has, and the others keep theirs.
func TestRecheckEndsStreams(t *testing.T) {
	for _, protocol := range []Protocol{Delta, SotW} {
		t.Run(string(protocol), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				var may atomic.Pointer[[]string]
				may.Store(&[]string{"edge", "inner"})
				p := start(t, Options{Identify: func(context.Context) (Identity, error) {
					groups := *may.Load()
					if groups == nil {
						return Identity{}, status.Error(codes.Unauthenticated, "nobody")
					}
					return Identity{Groups: groups}, nil
				}})
				p.Publish(map[string]*Snapshot{"edge": usual(t, "1")["edge"], "inner": usual(t, "1")["edge"]})
				edge := connect(t, p.dial(t), protocol, nodeOf("e", "edge"))
				inner := connect(t, p.dial(t), protocol, nodeOf("i", "inner"))
				edge.askUsual()
				inner.askUsual()
				p.Recheck()
				if edge.ended() != codes.OK || inner.ended() != codes.OK {
					t.Fatal("streams that may go on have ended")
				}
				may.Store(&[]string{"edge"})
				p.Recheck()
				if edge.ended() != codes.OK || inner.ended() != codes.PermissionDenied {
					t.Errorf("got %s for edge, %s for inner; want only inner to end", edge.ended(), inner.ended())
				}
				may.Store(new([]string))
				p.Recheck()
				if edge.ended() != codes.PermissionDenied {
					t.Error("edge goes on though nobody knows it")
				}
				late := connect(t, p.dial(t), protocol, nodeOf("l", "edge"))
				late.ask(cds)
				if got := late.ended(); got != codes.Unauthenticated {
					t.Errorf("a new stream: got %s, want what Identify says", got)
				}
			})
		})
	}
}

// A change of the rules that begins while a stream joins its group is not missed by it.
func TestRecheckWhileJoining(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var p *plane
		asked := 0
		p = start(t, Options{Identify: func(context.Context) (Identity, error) {
			asked++
			switch asked {
			case 1: // the stream begins
			case 2: // it joins, by the old rules
				p.Recheck()
			default:
				return Identity{}, errors.New("no longer")
			}
			return Identity{Groups: []string{"edge"}}, nil
		}})
		p.Publish(usual(t, "1"))
		e := p.envoy(t, Delta, "e")
		e.ask(cds)
		if got := e.ended(); got != codes.PermissionDenied {
			t.Errorf("got %s, want the stream to end", got)
		}
	})
}

// Whatever an Envoy of one group says, it gets nothing of another.
func TestNothingOfAnotherGroup(t *testing.T) {
	for name, say := range map[string]func(e *envoy){
		"its cluster": func(e *envoy) {
			e.node = nodeOf("e", "inner")
			e.ask(cds)
		},
		"its cluster as a list":    func(e *envoy) { e.node = nodeOf("e", "edge,inner"); e.ask(cds) },
		"its cluster in capitals":  func(e *envoy) { e.node = nodeOf("e", "INNER"); e.ask(cds) },
		"its cluster with a blank": func(e *envoy) { e.node = nodeOf("e", " inner"); e.ask(cds) },
		"a NUL after its own":      func(e *envoy) { e.node = nodeOf("e", "edge\x00inner"); e.ask(cds) },
		"the other's node id":      func(e *envoy) { e.node = nodeOf("inner", "edge"); e.askUsual() },
		"explicit names": func(e *envoy) {
			e.ask(cds, "of-inner")
			e.ask(eds, "of-inner")
			e.ask(rds, "route-of-inner")
			e.ask(sds, "secret-of-inner")
		},
		"explicit names beside the wildcard": func(e *envoy) { e.ask(cds, "*", "of-inner") },
		"the wildcard":                       func(e *envoy) { e.ask(cds, "*"); e.ask(lds, "*") },
		"names of all types as wildcards": func(e *envoy) {
			for _, url := range []string{cds, eds, rds, srds, lds, sds, vhds, rtds} {
				e.ask(url, "*")
			}
		},
		"versions that it claims to have": func(e *envoy) { e.askKnowing(cds, map[string]string{"of-inner": "1"}, "*", "of-inner") },
		"another cluster in a later message": func(e *envoy) {
			e.ask(cds)
			synctest.Wait()
			e.set(func() { e.node = nodeOf("e", "inner") })
			e.ask(lds)
		},
		"another id in a later message": func(e *envoy) {
			e.ask(cds)
			synctest.Wait()
			e.set(func() { e.node = nodeOf("inner", "edge") })
			e.ask(lds)
		},
	} {
		for _, protocol := range []Protocol{Delta, SotW} {
			t.Run(name+"/"+string(protocol), func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					p := start(t, Options{Identify: func(context.Context) (Identity, error) {
						return Identity{Groups: []string{"edge"}}, nil
					}})
					p.Publish(map[string]*Snapshot{
						"edge": snapshot(t, "1", cluster("of-edge", "1"), endpoint("of-edge", "1"), route("r", "a"), listener("l", "1"))["edge"],
						"inner": snapshot(t, "1", cluster("of-inner", "1"), endpoint("of-inner", "inner"), route("route-of-inner", "inner"),
							listener("listener-of-inner", "1"))["edge"],
					})
					e := p.envoy(t, protocol, "e")
					say(e)
					lines := strings.Join(e.got(), "\n")
					for _, removed := range []string{"-of-inner", "-route-of-inner", "-secret-of-inner"} { // the answer that there is no such thing
						lines = strings.ReplaceAll(lines, removed, "")
					}
					if strings.Contains(lines, "inner") {
						t.Errorf("got %s", lines)
					}
					for _, n := range p.Status() {
						if n.Group == "inner" {
							t.Errorf("it stands among the Envoys of inner: %v", n)
						}
					}
				})
			})
		}
	}
}

// What an Envoy of a group that it may join is refused tells nothing of the group.
func TestRefusalIsTheSameForGroupsThatAreNot(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := start(t, Options{Identify: func(context.Context) (Identity, error) { return Identity{Groups: []string{"edge"}}, nil }})
		p.Publish(map[string]*Snapshot{"inner": usual(t, "1")["edge"]})
		var said []string
		for _, group := range []string{"inner", "none"} {
			e := connect(t, p.dial(t), Delta, nodeOf("e", group))
			e.ask(cds)
			e.ended()
			said = append(said, strings.ReplaceAll(e.err.Error(), group, "GROUP"))
		}
		if said = slices.Compact(said); len(said) != 1 {
			t.Errorf("one that is there and one that isn't are told apart: %q", said)
		}
	})
}

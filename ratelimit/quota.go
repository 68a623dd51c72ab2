package ratelimit

import (
	"crypto/sha256"
	"encoding/hex"
	"math"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/legation/legation/store"
)

// maxGrant is how many hits a caller may take ahead of need with one request.
const maxGrant = 1_000_000

// reserve has the last ask take as many hits beyond its own as text says, for the caller to use later. Only hits that
// were counted are ever granted; what the caller doesn't use is lost. A caller that doesn't know quotas, as Envoy up to
// 1.40, must not ask for any.
func (d *decision) reserve(text string) {
	a := &d.asks[len(d.asks)-1]
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 1 || !a.stored() || a.limit.Shadow || a.hits < 1 || a.hits > math.MaxUint32 {
		return
	}
	a.granted = min(n, maxGrant)
	d.charge.Hits[len(d.charge.Hits)-1].Hits += a.granted
	d.reserved = true
}

// retry asks again, without the hits for later, for the decisions that were refused with them.
func (s *Service) retry(t *turn) {
	t.asked = t.asked[:0]
	for _, d := range t.decisions[:t.n] {
		if d.code != codes.OK || !d.reserved || d.charge.Err == nil && !refuses(d.charge.Outcomes) {
			continue
		}
		n := 0
		for i := range d.asks {
			if a := &d.asks[i]; a.stored() && !a.limit.Shadow {
				d.charge.Hits[n].Hits -= a.granted
				a.granted = 0
				n++
			}
		}
		if d.charge.Err == nil {
			t.asked = append(t.asked, &d.charge)
		}
	}
	if len(t.asked) > 0 {
		s.store.Decide(t.asked)
	}
}

func refuses(outcomes []store.Outcome) bool {
	for i := range outcomes {
		if !outcomes[i].Allowed {
			return true
		}
	}
	return false
}

// appendQuota appends the status' quota: how many, until the counter is reset at the latest, and an ID that is the same
// for all descriptors that the bucket answers.
func (a *ask) appendQuota(b []byte, now time.Time) []byte {
	sum := sha256.Sum256([]byte(a.key))
	until := now.Add(a.outcome.Reset)
	b, at := open(b, statusQuota)
	b = appendVarint(b, 1, uint64(a.granted))
	b, inner := open(b, 2)
	b = appendVarint(b, 1, uint64(until.Unix()))
	if n := until.Nanosecond(); n > 0 {
		b = appendVarint(b, 2, uint64(n))
	}
	b = shut(b, inner)
	b = protowire.AppendTag(b, 3, protowire.BytesType)
	b = protowire.AppendString(b, a.limit.Name+"#"+hex.EncodeToString(sum[:6]))
	return shut(b, at)
}

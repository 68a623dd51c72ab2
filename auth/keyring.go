package auth

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/legation/legation/store"
)

// Errors of the methods that make, list and take back API keys, beside those of the store.
var (
	ErrNoKeys = errors.New("this process has no store for API keys")
	ErrNoKey  = errors.New("there is no such API key")
	ErrOrder  = errors.New("no such key can be made")
)

// KeyOrder is what a new API key shall be.
type KeyOrder struct {
	Consumer string
	Entries  []string // the providers that take it; none: all that take keys
	Plan     string   // of a consumer that has none of its own; "" = none
	Name     string   // for people; "" = none
	Expires  time.Time
}

// KeyInfo is what is known of an API key. It holds nothing of the secret.
type KeyInfo struct {
	ID       string    `json:"id"`
	Consumer string    `json:"consumer"`
	Entries  []string  `json:"entries,omitempty"`
	Plan     string    `json:"plan,omitempty"`
	Name     string    `json:"name,omitempty"`
	Created  time.Time `json:"created,omitzero"`
	Expires  time.Time `json:"expires,omitzero"`
	Policy   bool      `json:"policy,omitempty"` // it stands in the policy, and can be changed there alone
}

// MadeKey is a new API key, the only time that it is shown.
type MadeKey struct {
	Key string `json:"key"`
	KeyInfo
}

// MakeKey makes an API key that all processes know within a second.
func (s *Service) MakeKey(ctx context.Context, order KeyOrder) (MadeKey, error) {
	if s.o.Keys == nil {
		return MadeKey{}, ErrNoKeys
	}
	t := s.table.Load()
	if err := t.checkOrder(order, time.Now()); err != nil {
		return MadeKey{}, err
	}
	peppers, err := t.peppers(order.Entries)
	if err != nil {
		return MadeKey{}, err
	}
	id, key := NewKey()
	shared := sharedKey{
		Consumer: order.Consumer, Entries: order.Entries, Plan: order.Plan, Name: order.Name, Created: time.Now().UTC().Truncate(time.Second),
	}
	for _, p := range peppers {
		shared.Hashes = append(shared.Hashes, shared.hash(key, p))
	}
	if err := s.putKey(ctx, id, shared, order.Expires); err != nil {
		return MadeKey{}, err
	}
	made := MadeKey{key, shared.info(id, order.Expires)}
	s.log.Info("api key made", "key", id, "consumer", order.Consumer, "entries", order.Entries, "expires", made.Expires)
	return made, nil
}

// maxKeyName is the most bytes of the name that a key has for people.
const maxKeyName = 100

func (t *table) checkOrder(order KeyOrder, now time.Time) error {
	consumer, there := t.named[order.Consumer]
	switch {
	case !there:
		return fmt.Errorf("%w: there is no consumer %q in the policy", ErrOrder, order.Consumer)
	case order.Plan != "" && consumer.plan != "":
		return fmt.Errorf("%w: the policy gives the consumer %q the plan %q, which goes before a key's", ErrOrder, order.Consumer, consumer.plan)
	case order.Plan != "" && checkName(order.Plan, "") != nil:
		return fmt.Errorf("%w: the plan: %w", ErrOrder, checkName(order.Plan, ""))
	case order.Name != "" && (len(order.Name) > maxKeyName || !cleanValue(order.Name) || checkName(order.Name, "") != nil):
		return fmt.Errorf("%w: the name has to be one line of at most %d bytes, without quotes", ErrOrder, maxKeyName)
	case !order.Expires.IsZero() && !order.Expires.After(now):
		return fmt.Errorf("%w: it would have expired already", ErrOrder)
	}
	return nil
}

// peppers are those of the providers that shall take a key, each once.
func (t *table) peppers(entries []string) (all [][]byte, err error) {
	takes := map[string]bool{}
	for _, p := range t.providers {
		w, ok := p.way.(*keyWay)
		if !ok || len(entries) > 0 && !slices.Contains(entries, w.name) {
			continue
		}
		takes[w.name] = true
		if !slices.ContainsFunc(all, func(o []byte) bool { return bytes.Equal(o, w.pepper) }) {
			all = append(all, w.pepper)
		}
	}
	for i, name := range entries {
		if !takes[name] || slices.Contains(entries[:i], name) {
			return nil, fmt.Errorf("%w: %q is no entry of apiKey that a route asks for, or stands twice, or its secret is not there", ErrOrder, name)
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%w: no route asks for an entry of apiKey", ErrOrder)
	}
	slices.SortFunc(all, bytes.Compare)
	return all, nil
}

// ListKeys gives the keys of a consumer, or of all with "": those of the policy, and those that are shared.
func (s *Service) ListKeys(consumer string) ([]KeyInfo, error) {
	all := []KeyInfo{}
	for _, k := range s.table.Load().keys.listed {
		all = append(all, KeyInfo{ID: k.id, Consumer: k.consumer, Entries: k.entries, Expires: k.expires, Policy: true})
	}
	if s.o.Keys != nil {
		for e := range s.o.Keys.Entries() {
			var k sharedKey
			if json.Unmarshal(e.Value, &k) == nil && k.Revoked.IsZero() {
				all = append(all, k.info(e.Name, e.Expires))
			}
		}
	}
	if consumer != "" {
		all = slices.DeleteFunc(all, func(k KeyInfo) bool { return k.Consumer != consumer })
	}
	slices.SortFunc(all, func(a, b KeyInfo) int {
		return cmp.Or(strings.Compare(a.Consumer, b.Consumer), a.Created.Compare(b.Created), strings.Compare(a.ID, b.ID))
	})
	return all, nil
}

// RotateKey makes a key like another, which stays good for the overlap. The new one lives as long as the old one was to.
func (s *Service) RotateKey(ctx context.Context, id string, overlap time.Duration) (MadeKey, error) {
	old, expires, err := s.shared(id)
	if err != nil {
		return MadeKey{}, err
	}
	order := KeyOrder{Consumer: old.Consumer, Entries: old.Entries, Plan: old.Plan, Name: old.Name}
	now := time.Now()
	if !expires.IsZero() {
		order.Expires = now.Add(expires.Sub(old.Created)).UTC().Truncate(time.Second)
	}
	made, err := s.MakeKey(ctx, order)
	if err != nil {
		return MadeKey{}, err
	}
	end := now.Add(max(overlap, 0)).UTC().Truncate(time.Second)
	if !expires.IsZero() && expires.Before(end) {
		end = expires
	}
	if overlap <= 0 {
		_, err = s.RevokeKey(ctx, id)
	} else if _, _, err = s.shared(id); err == nil { // who revoked it meanwhile meant it
		err = s.putKey(ctx, id, old, end)
	}
	if err != nil {
		_, undo := s.RevokeKey(ctx, made.ID)
		return MadeKey{}, errors.Join(fmt.Errorf("the old key stays as it is: %w", err), undo)
	}
	s.log.Info("api key rotated", "key", id, "consumer", old.Consumer, "new", made.ID, "until", end)
	return made, nil
}

// RevokeKey ends a key: in this process at once, in all others within a second.
func (s *Service) RevokeKey(ctx context.Context, id string) (KeyInfo, error) {
	old, expires, err := s.shared(id)
	if err != nil {
		return KeyInfo{}, err
	}
	// It keeps its place as long as the key would have lived: whatever an older copy of the board says later, it is revoked.
	if err := s.putKey(ctx, id, sharedKey{Revoked: time.Now().UTC().Truncate(time.Second)}, expires); err != nil {
		return KeyInfo{}, err
	}
	s.log.Info("api key revoked", "key", id, "consumer", old.Consumer)
	return old.info(id, expires), nil
}

// shared finds a key that was made while running.
func (s *Service) shared(id string) (k sharedKey, expires time.Time, err error) {
	for _, k := range s.table.Load().keys.listed {
		if k.id == id {
			return sharedKey{}, expires, fmt.Errorf("%w: %q stands in the policy, and can be changed there alone", ErrOrder, id)
		}
	}
	if s.o.Keys == nil {
		return k, expires, ErrNoKeys
	}
	e, there := s.o.Keys.Get(id)
	if !there || json.Unmarshal(e.Value, &k) != nil || !k.Revoked.IsZero() {
		return k, expires, ErrNoKey
	}
	return k, e.Expires, nil
}

func (s *Service) putKey(ctx context.Context, id string, k sharedKey, expires time.Time) error {
	value, err := json.Marshal(k)
	if err != nil {
		return err
	}
	return s.o.Keys.Put(ctx, store.Entry{Name: id, Value: value, Expires: expires})
}

func (k sharedKey) info(id string, expires time.Time) KeyInfo {
	return KeyInfo{ID: id, Consumer: k.Consumer, Entries: k.Entries, Plan: k.Plan, Name: k.Name, Created: k.Created, Expires: expires}
}

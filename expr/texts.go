package expr

import (
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"strconv"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
)

var (
	errNoKey = errors.New("no such key")
	errTwice = errors.New("the parameter stands twice")
	errQuery = errors.New("the query can be read in more than one way")
	errWalk  = errors.New("values are looked up by name here, one by one")
	errLarge = errors.New("the number is too large")
)

// texts is a map of CEL whose values are looked up one by one. Whatever would need all of them is an error, so that no
// condition holds because there seemed to be none.
type texts struct {
	facts  *Facts
	lookup func(f *Facts, key string) (string, error) // errNoKey: there is none
}

var _ traits.Mapper = texts{}

// Find looks a value up. The value of one that can't be told is an error.
func (t texts) Find(key ref.Val) (ref.Val, bool) {
	name, ok := key.(types.String)
	if !ok {
		return types.MaybeNoSuchOverloadErr(key), false
	}
	text, err := t.lookup(t.facts, string(name))
	switch err {
	case nil:
		return types.String(text), true
	case errNoKey:
		return nil, false
	}
	return types.WrapErr(err), true
}

// Get is Find, or an error.
func (t texts) Get(key ref.Val) ref.Val {
	if v, ok := t.Find(key); ok || v != nil {
		return v
	}
	return types.WrapErr(errNoKey)
}

// Contains tells whether Find finds something.
func (t texts) Contains(key ref.Val) ref.Val {
	v, ok := t.Find(key)
	if v != nil && types.IsError(v) {
		return v
	}
	return types.Bool(ok)
}

// Size is not known.
func (texts) Size() ref.Val { return types.WrapErr(errWalk) }

// Equal is not known.
func (texts) Equal(ref.Val) ref.Val { return types.WrapErr(errWalk) }

// Iterator gives one key, an error, which is then that of the expression.
func (texts) Iterator() traits.Iterator { return new(walk) }

// ConvertToType is not possible.
func (texts) ConvertToType(t ref.Type) ref.Val {
	if t == types.TypeType {
		return types.MapType
	}
	return types.WrapErr(errWalk)
}

// ConvertToNative is not possible.
func (texts) ConvertToNative(reflect.Type) (any, error) { return nil, errWalk }

// Type is that of a map.
func (texts) Type() ref.Type { return types.MapType }

// Value is itself.
func (t texts) Value() any { return t }

// walk is an iterator over nothing but an error.
type walk struct {
	ref.Val // none: iterators are never looked at as values
	done    bool
}

// HasNext tells of the one element.
func (w *walk) HasNext() ref.Val { return types.Bool(!w.done) }

// Next is the error.
func (w *walk) Next() ref.Val {
	w.done = true
	return types.WrapErr(errWalk)
}

// adapter makes values of CEL of what JSON holds. Maps and lists it hands its elements one by one, as they are read.
type adapter struct{}

// NativeToValue reads numbers as whole ones where they are written so. Those that can't be had exactly are an error: two
// account numbers must not become equal. All other values are as CEL has them.
func (a adapter) NativeToValue(value any) ref.Val {
	switch v := value.(type) {
	case nil:
		return types.NullValue
	case string:
		return types.String(v)
	case json.Number:
		return number(string(v))
	case []any:
		return types.NewDynamicList(a, v)
	case map[string]any:
		return types.NewStringInterfaceMap(a, v)
	case map[string]map[string]any:
		return types.NewDynamicMap(a, v)
	}
	return types.DefaultTypeAdapter.NativeToValue(value)
}

func number(text string) ref.Val {
	if i, err := strconv.ParseInt(text, 10, 64); err == nil {
		return types.Int(i)
	}
	f, err := strconv.ParseFloat(text, 64)
	const shared = 1 << 53 // from here on several whole numbers are one float64
	if err != nil || math.Abs(f) >= shared {
		return types.WrapErr(errLarge)
	}
	return types.Double(f)
}

package policy

import (
	"reflect"
	"slices"
	"strings"
)

// Check is what a setting's Check method gets: where the setting stands, and where to report.
type Check struct {
	set    Set
	place  Place    // of the entry that it stands in
	of     *binding // nil unless this is the merged setting of a route
	entry  *Entry
	load   *loader  // while the check runs
	reads  []string // files that the setting has read so far
	broken []string // keys beside the setting that were told already

	look   func(*Check) // nil: the setting's own Check
	unit   *unit
	rank   rank
	number int
	met    *met
	told   bool // it had something to tell
}

// Errorf reports a problem at path, relative to the setting: "allowOrigins[0]", "" for the setting itself. A path
// that was not written is reported at its nearest written parent.
func (c *Check) Errorf(path, format string, args ...any) *Problem {
	return c.blame(c.load.report(c.set.Node, path, false, format, args...))
}

// Warnf is Errorf for what is allowed, but likely not meant.
func (c *Check) Warnf(path, format string, args ...any) *Problem {
	return c.blame(c.load.report(c.set.Node, path, true, format, args...))
}

func (c *Check) blame(p *Problem) *Problem {
	p.blames = append(p.blames, c.reads...)
	if c.of != nil { // the layers that the setting comes from may have caused it
		p.culprits = append(p.culprits, c.of.files(c.set.Kind)...)
	}
	return p
}

// Place tells in which kind of entry the setting stands; the merged setting of a route is InRoute.
func (c *Check) Place() Place { return c.place }

// Entry is the entry that the setting stands in; for the merged setting of a route, the route's.
func (c *Check) Entry() *Entry { return c.entry }

// Route is the route whose merged setting this is; nil for a setting as written.
func (c *Check) Route() *BoundRoute {
	if c.of == nil {
		return nil
	}
	return c.of.bound
}

// Layer4 tells whether the setting is that of a route whose listeners speak TCP or TLS, as written or merged.
func (c *Check) Layer4() bool { return c.unit.route != nil && c.unit.route.Layer4 }

// Trusted tells whether the setting stands in the inbound of a sidecar, where peers are trusted to have asked who calls:
// requests come with the headers that auth sets.
func (c *Check) Trusted() bool {
	return c.place == InRoute && strings.HasSuffix(c.entry.Name, "/"+inboundName) // nobody else's name has a slash
}

// Model is the policy so far: all entries are there with their names; settings may still be unchecked. Whoever asks for it
// is asked again whenever any route or service changes: see [Check.Common], [Check.App] and [Beside] for less.
func (c *Check) Model() *Model {
	c.load.meets().whole = true
	return c.load.model
}

// Common is what [Check.Model] has but for routes and services.
func (c *Check) Common() *Common { return &c.load.model.Common }

// Set is the setting in its place, as it will stand in the model.
func (c *Check) Set() Set { return c.set }

// Ref reports a reference to an entry that does not exist, with the nearest name as a hint, and tells whether it is there.
func (c *Check) Ref(path, section, name string) bool {
	if c.load.has(section, name) {
		c.load.refer(section, name)
		return true
	}
	c.blame(c.load.missing(c.set.Node, path, section, name))
	return false
}

// Broken tells whether the entry has something under key that could not be read, which was told already: what depends
// on the key should not be complained of. For the merged setting of a route any layer counts.
func (c *Check) Broken(key string) bool {
	if c.of != nil {
		return c.of.bound.Broken(key)
	}
	return slices.Contains(c.broken, key)
}

// Once gives what build makes, made once for all the checks of a load that ask for this T: an index over the model, so
// that a check need not walk it. What is made of [Check.Common] alone is good for later loads, too.
func Once[T any](c *Check, build func() T) T {
	return onceOf(c.load, onceKey{of: reflect.TypeFor[T]()}, build)
}

// maxWork is how much the expressions of one file may cost to look at: of plain ones, characters. That is some 0.1 s.
const maxWork = 48 << 10

// Affords counts what it costs to look at an expression against what one file may ask for, each text once. It reports at
// path the one that is too much, and tells whether it may be looked at.
func (c *Check) Affords(path, expression string, cost int) bool {
	at, _ := c.set.Node.find(path)
	text := work{at.Pos.File, expression}
	if c.load.worked[text] {
		return true
	}
	if c.load.spent[at.Pos.File]+cost > maxWork {
		c.Errorf(path, "the expressions of this file are too long together, or nest too deep, to be looked at").Hintf("split the file")
		return false
	}
	c.load.worked[text] = true
	c.load.spent[at.Pos.File] += cost
	return true
}

// work is an expression that stands in a file.
type work struct{ file, expression string }

// Regex reports an expression that RE2 or Envoy will not run, and tells whether it is fine.
func (c *Check) Regex(path, expr string) bool {
	if err := CheckRegex(expr); err != nil {
		c.Errorf(path, "%v", err)
		return false
	}
	return true
}

// File returns a file that the policy refers to; name is relative to the folder of the policy file that the setting
// stands in, and may not leave the policy directory. It reports what is wrong at path.
func (c *Check) File(path, name string) ([]byte, bool) {
	content, full, p := c.load.file(c.set.Node, path, name)
	c.reads = append(c.reads, full)
	if p != nil {
		c.blame(p)
	}
	return content, p == nil
}

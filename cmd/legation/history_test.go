package main

import (
	"testing"

	"github.com/legation/legation/revision"
)

// What a revision is, in a line, with what its maker said and without.
func TestWhat(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		r    revision.Revision
		want string
	}{
		{revision.Revision{Source: revision.Pushed}, "-"},
		{revision.Revision{Source: revision.Pushed, Message: "longer\nsince it takes long"}, "longer …"},
		{revision.Revision{Source: revision.Pushed, Forced: true}, "(forced)"},
		{revision.Revision{Source: revision.Pushed, Message: "less", Forced: true}, "less (forced)"},
		{revision.Revision{Source: revision.Rollback, Of: 3}, "back to 3"},
		{revision.Revision{Source: revision.Rollback, Of: 3, Message: "slow", Forced: true}, "back to 3: slow (forced)"},
		{revision.Revision{Source: revision.Directory}, "the directory changed"},
	} {
		if got := what(row.r); got != row.want {
			t.Errorf("%+v: got %q, want %q", row.r, got, row.want)
		}
	}
}

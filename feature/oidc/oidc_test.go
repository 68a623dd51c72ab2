package oidc_test

import (
	"testing"

	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/feature/oidc"
)

func TestGolden(t *testing.T) { golden.Run(t, "testdata", oidc.Kind) }

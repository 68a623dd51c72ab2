package sample_test

import (
	"testing"

	"github.com/legation/legation/feature/golden"
	"github.com/legation/legation/feature/sample"
)

func TestGolden(t *testing.T) { golden.Run(t, "testdata", sample.Kind) }

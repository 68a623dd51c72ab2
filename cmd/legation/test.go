package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"time"

	"github.com/legation/legation/policy"
	"github.com/legation/legation/trial"
	"github.com/spf13/cobra"
)

func testCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "test DIR",
		Short: "Run a policy's test cases against a real Envoy",
		Long: `Run the cases of the files *_test.yaml below DIR against the policy in DIR. They say what is sent and what has to become
of it: the status, the route and the service that answer, headers, who is let in, what limits say. The policy runs on a real
Envoy for each gateway that the cases ask, at free ports of 127.0.0.1, with a companion and a store of its own. Samples
stand for all services, so that nothing real is ever called; keys and certificates are made for the run, so that cases ask
for the tokens that they need. docs/testing.md has the language of the files, and tells all that is replaced.

A case that fails is told with file, line and column of what was expected, what came instead, and what explain says of the
request. Routes that no case reaches are listed; --cover fails the run where they are too many.

Output: text for people, json for programs, junit (XML) for CI; --junit writes that to a file beside what is shown.

Exit status: 0 every case holds; 1 one does not, too few routes are reached, or the policy, the cases or Envoy are bad;
2 usage.`,
		Example: `  legation test policy/
  legation test policy/ --run 'token|login' -v
  legation test policy/ --cover 100 --junit report.xml
  legation test policy/ --cases tests/        cases that are kept elsewhere`,
		Args: directory,
		RunE: test,
	}
	f := c.Flags()
	f.StringP("output", "o", "text", "text, json or junit")
	f.String("junit", "", "a file to write JUnit's XML to, too")
	f.StringArray("cases", nil, "a folder of further test files (*_test.yaml); again for each other one")
	f.String("run", "", "only the cases whose names this regex finds")
	f.Bool("fail-fast", false, "end with the first case that fails")
	f.Float64("cover", 0, "fail where cases reach less than so many percent of the routes")
	f.Duration("timeout", 5*time.Minute, "how long the run may take")
	f.BoolP("verbose", "v", false, "tell of each request")
	f.String("envoy", "", "path of the Envoy binary; else LEGATION_ENVOY, PATH, then .tools/")
	return c
}

// test runs the cases of a directory.
func test(c *cobra.Command, args []string) error {
	o, format, err := testOptions(c, args[0])
	if err != nil {
		return err
	}
	w := &trial.Writer{To: c.OutOrStdout(), Colour: colour(c.OutOrStdout())}
	w.Verbose, _ = c.Flags().GetBool("verbose")
	if format == "text" {
		o.Begin = w.Begin
		o.Tell = func(r trial.Result, files policy.Files) {
			w.Files = files
			w.Result(r)
		}
	}
	r, err := trial.Run(c.Context(), o)
	if c.Context().Err() != nil {
		err = errors.New("interrupted")
	}
	atLeast, _ := c.Flags().GetFloat64("cover")
	if err == nil && !r.Problems.HasErrors() && r.Covered() < atLeast {
		err = fmt.Errorf("cases reach %.4g %% of the routes, and --cover asks for %.4g %%", r.Covered(), atLeast)
	}
	told := tellTest(c.OutOrStdout(), format, w, r, err, o.Match == nil)
	if path, _ := c.Flags().GetString("junit"); path != "" {
		told = errors.Join(told, writeJUnitFile(path, r, err))
	}
	switch {
	case told != nil:
		return told
	case err != nil && format == "text":
		return err
	case err != nil || r.Failed() || r.Problems.HasErrors():
		return errBad
	}
	return nil
}

func testOptions(c *cobra.Command, dir string) (o trial.Options, format string, err error) {
	s, err := newSettings(c.Flags())
	if err != nil {
		return o, "", err
	}
	f := c.Flags()
	format, _ = f.GetString("output")
	if format != "text" && format != "json" && format != "junit" {
		return o, "", usage{fmt.Errorf("-o: want text, json or junit, not %q", format)}
	}
	o = trial.Options{Dir: dir, Envoy: s.v.GetString("envoy")}
	o.Cases, _ = f.GetStringArray("cases")
	o.FailFast, _ = f.GetBool("fail-fast")
	if o.Timeout, _ = f.GetDuration("timeout"); o.Timeout <= 0 {
		return o, "", usage{fmt.Errorf("--timeout: want a time such as 5m, not %s", o.Timeout)}
	}
	atLeast, _ := f.GetFloat64("cover")
	if atLeast < 0 || atLeast > 100 {
		return o, "", usage{fmt.Errorf("--cover: want a share from 0 to 100 percent, not %g", atLeast)}
	}
	match, _ := f.GetString("run")
	if match == "" {
		return o, format, nil
	}
	if atLeast > 0 {
		return o, "", usage{errors.New("--run leaves cases out, so that --cover would tell nothing: leave one of them out")}
	}
	if o.Match, err = regexp.Compile(match); err != nil {
		return o, "", usage{fmt.Errorf("--run: %w", err)}
	}
	return o, format, nil
}

// tellTest writes what came of a run; the cases are written already where people read it.
func tellTest(out io.Writer, format string, w *trial.Writer, r *trial.Report, err error, whole bool) error {
	switch format {
	case "json":
		return writeTested(out, r, err)
	case "junit":
		return r.WriteJUnit(out, err)
	}
	if len(r.Problems) > 0 {
		if err := r.Problems.Write(out, r.Files, w.Colour); err != nil {
			return err
		}
	}
	if r.Problems.HasErrors() {
		fmt.Fprintf(out, "\n%s: nothing was run\n", tally(r.Problems))
	} else if r.Routes != nil || r.Results != nil {
		w.Summary(r, whole && err == nil)
	}
	return nil
}

func writeJUnitFile(path string, r *trial.Report, cause error) error {
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("--junit: %w", err)
	}
	return errors.Join(r.WriteJUnit(f, cause), f.Close())
}

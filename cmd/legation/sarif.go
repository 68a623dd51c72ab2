package main

import (
	"errors"
	"io"
	"maps"
	"net/url"
	"path"
	"slices"
)

// The parts of SARIF 2.1.0 (OASIS) that a finding needs.
type (
	sarifLog struct {
		Schema  string     `json:"$schema"`
		Version string     `json:"version"`
		Runs    []sarifRun `json:"runs"`
	}
	sarifRun struct {
		Tool        sarifTool         `json:"tool"`
		Invocations []sarifInvocation `json:"invocations"`
		ColumnKind  string            `json:"columnKind"`
		Results     []sarifResult     `json:"results"`
	}
	sarifTool struct {
		Driver sarifDriver `json:"driver"`
	}
	sarifDriver struct {
		Name           string      `json:"name"`
		Version        string      `json:"version"`
		InformationURI string      `json:"informationUri"`
		Rules          []sarifRule `json:"rules"`
	}
	sarifRule struct {
		ID               string    `json:"id"`
		ShortDescription sarifText `json:"shortDescription"`
	}
	sarifText struct {
		Text string `json:"text"`
	}
	sarifInvocation struct {
		ExecutionSuccessful bool          `json:"executionSuccessful"`
		Notifications       []sarifNotice `json:"toolExecutionNotifications,omitempty"`
	}
	sarifNotice struct {
		Level   string    `json:"level"`
		Message sarifText `json:"message"`
	}
	sarifResult struct {
		RuleID    string          `json:"ruleId"`
		RuleIndex int             `json:"ruleIndex"`
		Level     string          `json:"level"`
		Message   sarifText       `json:"message"`
		Locations []sarifLocation `json:"locations"`
		Related   []sarifLocation `json:"relatedLocations,omitempty"`
	}
	sarifLocation struct {
		ID       int            `json:"id,omitempty"` // of related ones
		Physical sarifPhysical  `json:"physicalLocation"`
		Logical  []sarifLogical `json:"logicalLocations,omitempty"`
		Message  *sarifText     `json:"message,omitempty"`
	}
	sarifPhysical struct {
		Artifact sarifArtifact `json:"artifactLocation"`
		Region   *sarifRegion  `json:"region,omitempty"`
	}
	sarifArtifact struct {
		URI string `json:"uri"`
	}
	sarifRegion struct {
		StartLine   int `json:"startLine"`
		StartColumn int `json:"startColumn,omitempty"`
		EndColumn   int `json:"endColumn,omitempty"`
	}
	sarifLogical struct {
		FullyQualifiedName string `json:"fullyQualifiedName"`
	}
)

// writeSARIF tells the problems as code scanning reads them.
func writeSARIF(w io.Writer, f finding) error {
	r := f.report()
	run := sarifRun{
		Tool:        sarifTool{sarifDriver{Name: "Legation", Version: version, InformationURI: "https://github.com/legation/legation"}},
		Invocations: []sarifInvocation{{ExecutionSuccessful: f.err == nil}},
		ColumnKind:  "unicodeCodePoints",
		Results:     []sarifResult{},
	}
	if f.err != nil {
		run.Invocations[0].Notifications = []sarifNotice{{Level: "error", Message: sarifText{r.Error}}}
	}
	about := newRules()
	ids := slices.Sorted(maps.Keys(about))
	for _, id := range ids {
		run.Tool.Driver.Rules = append(run.Tool.Driver.Rules, sarifRule{id, sarifText{about[id]}})
	}
	for _, p := range r.Problems {
		run.Results = append(run.Results, f.sarif(p, slices.Index(ids, p.Rule)))
	}
	log := sarifLog{
		Schema: "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json", Version: "2.1.0", Runs: []sarifRun{run},
	}
	return errors.Join(writeJSON(w, log), f.bad())
}

func (f finding) sarif(p reported, rule int) sarifResult {
	text := p.Message
	if p.Hint != "" {
		text += "\nhint: " + p.Hint
	}
	at := f.sarifLocation(p.place)
	if p.Path != "" {
		at.Logical = []sarifLogical{{p.Path}}
	}
	one := sarifResult{RuleID: p.Rule, RuleIndex: rule, Level: p.Severity, Message: sarifText{text}, Locations: []sarifLocation{at}}
	for i, other := range p.Also {
		at := f.sarifLocation(other)
		at.ID, at.Message = i+1, &sarifText{"the other place of the conflict"}
		one.Related = append(one.Related, at)
	}
	return one
}

// sarifLocation is relative to the working directory, as code scanning wants it; that of an absolute directory is a URL.
func (f finding) sarifLocation(at place) sarifLocation {
	file := f.fromHere(at.File)
	uri := url.URL{Path: file}
	if path.IsAbs(file) {
		uri.Scheme = "file"
	}
	l := sarifLocation{Physical: sarifPhysical{Artifact: sarifArtifact{uri.String()}}}
	if at.Line > 0 {
		l.Physical.Region = &sarifRegion{StartLine: at.Line, StartColumn: at.Column, EndColumn: at.EndColumn}
	}
	return l
}

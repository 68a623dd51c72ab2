// Package control is the loop from the policy to what is served: it waits for changes of a directory, or for the next
// revision of a history, loads and isolates the files, translates the model, hands the companions their tables, then
// publishes the snapshots, and keeps what was served as a revision, also for the next start. Node groups whose Envoys refuse
// what they are served go back. app runs one [Controller]; the command line uses [Compile] for its offline verbs.
package control

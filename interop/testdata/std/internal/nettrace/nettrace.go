// Package nettrace replaces internal/nettrace, which only the standard library may import. Package
// net does not find the values that are put into a context under the keys of this package.
package nettrace

// LookupIPAltResolverKey is the key of a function that looks up names.
type LookupIPAltResolverKey struct{}

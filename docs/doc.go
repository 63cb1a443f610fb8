// Package docs holds the project's documents; its test keeps the example of library.md true.
package docs

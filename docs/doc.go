// Package docs holds the project's documents; its test keeps the README's example true.
package docs

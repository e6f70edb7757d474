// CRDs only, of the GitOps tools that docs/gitops has manifests for; nothing is built.
module legion-platform.org/tests/kubernetes/gitops

go 1.26.0

require (
	github.com/argoproj/argo-cd/v3 v3.2.1
	github.com/fluxcd/kustomize-controller v1.7.3
	github.com/fluxcd/source-controller v1.7.3
)

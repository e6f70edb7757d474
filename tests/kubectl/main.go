// The real kubectl, built from its published module, for the tests that drive the embedded API with it.
package main

import (
	"k8s.io/component-base/cli"
	"k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/util"

	// Credential plugins are registered by import, as in the upstream command.
	_ "k8s.io/client-go/plugin/pkg/client/auth"
)

func main() {
	if err := cli.RunNoErrOutput(cmd.NewDefaultKubectlCommand()); err != nil {
		// Prints the error and exits with the code that upstream gives it.
		util.CheckErr(err)
	}
}

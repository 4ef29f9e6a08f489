//! What is generated and committed is what the types say now.

use std::process::Command;

/// The generator refuses CRDs that kubectl could not apply for their size, so it fails here on that too.
#[test]
fn what_is_committed_is_what_crdgen_writes() {
    let run = Command::new(env!("CARGO_BIN_EXE_crdgen")).arg("--check").output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
}

//! A Pod with stock tools, next to the servers. Talks to the cluster.

use std::sync::OnceLock;

use crate::command::Ended;
use crate::images;
use crate::postgres::shared_space;
use crate::session;
use crate::wait::seconds;

/// Runs a program in the Pod, with `input` on its standard input.
pub fn run(arguments: &[&str], input: &[u8]) -> Ended {
    static READY: OnceLock<()> = OnceLock::new();
    let space = shared_space();
    READY.get_or_init(|| {
        space.apply(&images::tools_pod("tools"));
        space.wait("Pod", "tools", "runs", seconds(60), |pod| pod["status"]["phase"] == "Running");
    });
    session::run(space.name(), "tools", arguments, input)
}

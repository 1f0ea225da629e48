//! (being written)

/// How the controller is called.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {}

/// Runs the controller.
///
/// # Errors
/// Always, until it is written.
pub async fn run(_: Args) -> anyhow::Result<()> {
    anyhow::bail!("not there yet")
}

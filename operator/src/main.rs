//! The binary: `holdfast controller` decides, `holdfast worker` acts, `holdfast crds` prints the API.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use holdfast::{controller, worker};
use tracing_subscriber::EnvFilter;

/// Backs up databases of a Kubernetes cluster to S3-compatible storage, proves what it stored, and restores it.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// What to log: error, warn, info, debug or trace, or a filter such as `info,kube=debug`.
    #[arg(long, env = "HOLDFAST_LOG_LEVEL", default_value = "info", global = true)]
    log_level: String,
    /// How to log.
    #[arg(long, env = "HOLDFAST_LOG_FORMAT", value_enum, default_value = "text", global = true)]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    /// A line for people.
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Subcommand)]
enum Command {
    /// Watch policies and what belongs to them, and make it so.
    Controller(Box<controller::Args>),
    /// Run one task of a Job.
    Worker(worker::Args),
    /// Print the CustomResourceDefinitions as YAML.
    Crds,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    start_log(&cli)?;
    // Two users of rustls are linked; the one provider that is must be named once.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        anyhow::bail!("a TLS provider is installed already");
    }
    match cli.command {
        Command::Controller(args) => Ok(controller::run(*args).await.map(|()| ExitCode::SUCCESS)?),
        Command::Worker(args) => Ok(worker::run(args).await),
        Command::Crds => {
            for crd in holdfast_crds::all() {
                println!("---\n{}", holdfast_crds::to_yaml(&crd)?);
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn start_log(cli: &Cli) -> anyhow::Result<()> {
    let log = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_new(&cli.log_level)?)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match cli.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}

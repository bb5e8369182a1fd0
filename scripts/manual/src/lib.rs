//! Man pages and shell completions of both programs, from what each says of its
//! own commands.
//!
//! The backend's command line is [`clap`]'s, which declares it. The agent's help
//! texts are its syntax, and [`agent`] reads them as the agent does. Neither
//! program carries any of this.
//!
//! The program writes a folder for each, laid out as `/usr/share` is:
//!
//! ```text
//! DIR/av-agent/man/man1/av-agent.1
//! DIR/av-agent/man/man1/av-agent-status.1
//! DIR/av-agent/bash-completion/completions/av-agent
//! DIR/av-agent/zsh/vendor-completions/_av-agent
//! DIR/av-agent/fish/vendor_completions.d/av-agent.fish
//! DIR/av-backend/...
//! ```

pub mod agent;
pub mod pages;

use std::fs;
use std::io;
use std::path::Path;

use clap::Command;
use clap_complete::Shell;

/// Where a shell looks below `/usr/share`, and what it calls a program's file.
fn place(shell: Shell, program: &str) -> Option<(&'static str, String)> {
    match shell {
        Shell::Bash => Some(("bash-completion/completions", program.to_owned())),
        Shell::Zsh => Some(("zsh/vendor-completions", format!("_{program}"))),
        Shell::Fish => Some(("fish/vendor_completions.d", format!("{program}.fish"))),
        _ => None,
    }
}

/// Writes the man pages and completions of both programs into a folder.
///
/// # Errors
/// Where a file cannot be written.
pub fn write(into: &Path) -> io::Result<()> {
    for command in [agent::command(), av_backend::cli::declared()] {
        write_one(&command, &into.join(command.get_name()))?;
    }
    Ok(())
}

fn write_one(command: &Command, into: &Path) -> io::Result<()> {
    let program = command.get_name();
    let man = into.join("man/man1");
    fs::create_dir_all(&man)?;
    for (name, page) in pages::of(command)? {
        fs::write(man.join(format!("{name}.1")), page)?;
    }
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        let Some((folder, file)) = place(shell, program) else {
            continue;
        };
        let folder = into.join(folder);
        fs::create_dir_all(&folder)?;
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut command.clone(), program, &mut script);
        fs::write(folder.join(file), script)?;
    }
    Ok(())
}

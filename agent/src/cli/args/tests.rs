use super::*;
use crate::cli::Command;

const HELP: &str = "\
Try it.

Usage: av-agent try [OPTIONS] <IP> [<FILE>]

Options:
  -q, --quiet
          Say less, as --silent does
  -w, --watch [<SECONDS>]
          Look again
      --port <PORT>
          The port
  -s, --set <NAME=VALUE>...
          A setting:
          --set a=1
  -h, --help
          Print this help
";

fn read(line: &str) -> Result<Given, String> {
    let words = line.split_whitespace().map(OsString::from);
    Given::read(HELP, words).map_err(|stop| match stop {
        Stop::Say(help) => help,
        Stop::Wrong { error, .. } => error.to_string(),
    })
}

#[test]
fn the_help_is_the_syntax() {
    for (line, quiet, watch, port, set, words) in [
        ("", false, None, None, "", ""),
        ("1.2.3.4 file", false, None, None, "", "1.2.3.4 file"),
        ("-q --port 1", true, None, Some(1), "", ""),
        ("--port=1 x --quiet", true, None, Some(1), "", "x"),
        ("-qw5 x", true, Some("5"), None, "", "x"),
        ("-w 5 x", false, Some("5"), None, "", "x"),
        ("--watch=5 x", false, Some("5"), None, "", "x"),
        ("x -w", false, None, None, "", "x"),
        ("x -w -q", true, None, None, "", "x"),
        ("-s a=1 --set=b=-2 -sc", false, None, None, "a=1 b=-2 c", ""),
        ("-- -q --port", false, None, None, "", "-q --port"),
        ("-", false, None, None, "", "-"),
    ] {
        let given = read(line).unwrap();
        assert_eq!(given.has("quiet"), quiet, "{line}");
        assert_eq!(
            given.option::<String>("watch").unwrap().as_deref(),
            watch,
            "{line}"
        );
        assert_eq!(given.has("watch"), line.contains("-w") || watch.is_some());
        assert_eq!(given.option::<u16>("port").unwrap(), port, "{line}");
        assert_eq!(given.options::<String>("set").unwrap().join(" "), set);
        assert_eq!(given.words::<String>(0).unwrap().join(" "), words);
        assert!(!given.has("silent"), "{line}");
    }
}

#[test]
fn what_is_wrong_is_said() {
    for (line, said) in [
        (
            "--quite",
            "there is no option '--quite'; there is '--quiet'",
        ),
        ("--silent", "there is no option '--silent'"),
        ("-x", "there is no option '-x'"),
        ("-qx", "there is no option '-x'"),
        ("--quiet=1", "'--quiet' takes no value"),
        ("-q -q", "'--quiet' cannot be given twice"),
        ("--port 1 --port 2", "'--port <PORT>' cannot be given twice"),
        ("--port", "a value is required for '--port <PORT>'"),
        ("--port -q", "a value is required for '--port <PORT>'"),
        ("1.2.3.4 file more", "there is no argument 'more'"),
        ("--help --no-such", HELP),
        ("--no-such --help", "there is no option '--no-such'"),
    ] {
        assert_eq!(read(line).unwrap_err(), said, "{line}");
    }
    let given = read("--port 65536 -w 0 host").unwrap();
    for (error, said) in [
        (
            given.option::<u16>("port").unwrap_err(),
            "invalid value '65536' for '--port <PORT>': number too large to fit in target type",
        ),
        (
            given.number("watch", 1, 9).unwrap_err(),
            "invalid value '0' for '--watch': it is not from 1 to 9",
        ),
        (
            given.required::<std::net::IpAddr>(0).unwrap_err(),
            "invalid value 'host' for '<IP>': invalid IP address syntax",
        ),
        (
            given.required::<String>(1).unwrap_err(),
            "'[<FILE>]' is required",
        ),
    ] {
        assert_eq!(error.to_string(), said);
    }
}

#[test]
fn a_path_need_not_be_utf_8() {
    use std::os::unix::ffi::OsStringExt;
    let path = OsString::from_vec(b"/tmp/\xff".to_vec());
    let given = Given::read(HELP, ["x".into(), path.clone()].into_iter()).unwrap();
    assert_eq!(given.path_at(1), Some(PathBuf::from(path)));
    let error = given.required::<String>(1).unwrap_err();
    assert!(error.to_string().ends_with("it is not UTF-8"), "{error}");
}

/// The debug text of the command of a line, or what is said in its place.
fn command(line: &str) -> String {
    match Command::of(line.split_whitespace().map(OsString::from)) {
        Ok(None) => "runs".to_owned(),
        Ok(Some(command)) => format!("{command:?}"),
        Err(Stop::Say(text)) => text,
        Err(Stop::Wrong { error, usage }) => format!("{error}\n{usage}"),
    }
}

#[test]
fn each_command_gets_what_it_is_told() {
    for (line, debug) in [
        ("", "runs"),
        (
            "check",
            "Check(Arguments { config: None, offline: false, json: false })",
        ),
        (
            "check a.json --offline --json",
            "Check(Arguments { config: Some(\"a.json\"), offline: true, json: true })",
        ),
        (
            "discover 10.0.0.1 10.0.1.0/30",
            "Discover(Arguments { networks: [One(10.0.0.1), Whole(10.0.1.1, 10.0.1.2, \
             10.0.1.3)], rate: 100, search_wait: 11s, community_env: [], password_env: None, json: false, \
             suggest: false, quiet: false })",
        ),
        (
            "discover ::1 --rate 7 --search-wait 0 --community-env A --community-env B --json \
             --suggest -q",
            "Discover(Arguments { networks: [One(::1)], rate: 7, search_wait: 0ns, community_env: \
             [\"A\", \"B\"], password_env: None, json: true, suggest: true, quiet: true })",
        ),
        (
            "status",
            "Status(Arguments { url: None, json: false, watch: None, \
             problems: false })",
        ),
        (
            "status -pw --json --url http://[::1]:1",
            "Status(Arguments { url: Some(\"http://[::1]:1\"), json: true, watch: Some(2), \
             problems: true })",
        ),
        (
            "status --watch 60",
            "Status(Arguments { url: None, json: false, watch: Some(60), \
             problems: false })",
        ),
        (
            "sweep a.json --summary",
            "Sweep(Arguments { config: \"a.json\", json: false, summary: true })",
        ),
        (
            "probe ::1 -vd ping --port 1 --timeout 0.5 --set a=1 --set b.c=2 --secret-env n=V \
             --secret-file n=F --ask p --password-env A --password-file B --community-env C \
             --community-file D --json",
            "Probe(Arguments { ip: ::1, driver: Some(\"ping\"), from_config: None, \
             port: Some(1), timeout: Some(0.5), settings: [\"a=1\", \"b.c=2\"], \
             secret_env: [\"n=V\"], secret_file: [\"n=F\"], ask: [\"p\"], \
             password_env: Some(\"A\"), password_file: Some(\"B\"), community_env: Some(\"C\"), \
             community_file: Some(\"D\"), json: true, verbose: true })",
        ),
    ] {
        assert_eq!(command(line), debug, "{line}");
    }
    let enroll = command("enroll https://av.example.org K7-SECRET --config c --force");
    assert!(
        enroll.contains("backend: \"https://av.example.org\"")
            && enroll.contains("config: Some(\"c\"), force: true"),
        "{enroll}"
    );
    assert!(!enroll.contains("K7-SECRET"), "{enroll}");
    for (line, from_config) in [
        ("probe ::1 --from-config", "from_config: Some(None)"),
        (
            "probe --from-config=a.json ::1",
            "from_config: Some(Some(\"a.json\"))",
        ),
        (
            "probe ::1 --from-config a.json",
            "from_config: Some(Some(\"a.json\"))",
        ),
    ] {
        let probe = command(line);
        assert!(probe.contains(from_config), "{line}: {probe}");
    }
}

#[test]
fn help_version_and_mistakes() {
    assert_eq!(
        command("--version"),
        format!("av-agent {}\n", crate::VERSION)
    );
    assert_eq!(command("-V"), command("--version"));
    for line in ["--help", "-h", "help"] {
        assert!(command(line).starts_with("Watches a site's"), "{line}");
    }
    for (line, begins) in [
        (
            "probee",
            "there is no command 'probee'; there is 'probe'\nUsage: av-agent\n",
        ),
        ("go", "there is no command 'go'\nUsage: av-agent\n"),
        ("help go", "there is no command 'go'\nUsage: av-agent\n"),
        (
            "--verison",
            "there is no option '--verison'; there is '--version'\n",
        ),
        ("--", "'<COMMAND>' is required\n"),
        (
            "probe",
            "'<IP>' is required\nUsage: av-agent probe [OPTIONS] <IP>",
        ),
        ("probe ::1", "'--driver <DRIVER>' is required\n"),
        ("probe --version", "there is no option '--version'"),
        ("discover", "'<NETWORK>...' is required\n"),
        (
            "discover ::1 --rate 0",
            "invalid value '0' for '--rate': it is not from 1 to 10000\n",
        ),
        (
            "status x",
            "there is no argument 'x'\nUsage: av-agent status [OPTIONS]",
        ),
        (
            "sweep a --json --summary",
            "'--summary' cannot be given with '--json'\n",
        ),
        ("enroll https://av.example.org", "'<CODE>' is required\n"),
    ] {
        let said = command(line);
        assert!(said.starts_with(begins), "{line}: {said}");
    }
}

#[test]
fn each_command_has_a_help_that_fits_a_terminal() {
    for name in Command::NAMES {
        let help = command(&format!("{name} --help"));
        assert_eq!(help, command(&format!("help {name}")));
        assert!(
            help.contains(&format!("\nUsage: av-agent {name}")) && help.contains("-h, --help\n"),
            "{help}"
        );
        assert!(command("--help").contains(&format!("\n  {name:10}")));
        for line in help.lines().chain(command("--help").lines()) {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }
}

//! The whole agent, put together.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use av_service::Watchdog;
use av_service::http::Hosts;
use crossbeam_channel::{Receiver, bounded, select};

use crate::clock::{Clock, SystemSource};
use crate::collector::{Collector, last_good_time};
use crate::config::{ConfigHandle, ConfigStore, LoadError};
use crate::config_source::ConfigSource;
use crate::driver::{Drivers, ProbeNow};
use crate::http_client::HttpClient;
use crate::page::{self, Page, Sources, Wish};
use crate::pjlink::notices::Notices;
use crate::report::{Limits, Reporter};
use crate::settings::Settings;
use crate::snapshot::Snapshots;
use crate::supervisor::{Health, Stop, Supervisor};
use crate::sync::{Sync, SyncState};

/// How long the threads have to end.
const STOP_MAX: Duration = Duration::from_secs(2);
/// Batches between collector and report: more than one sweep in hand means
/// that the disk is slow, and the collector then waits.
const BATCHES: usize = 2;
/// Threads that answer for the status page.
const PAGE_THREADS: usize = 2;

/// Why the agent cannot run, or could not go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// There is nothing to run.
    #[error(transparent)]
    Config(#[from] LoadError),
    /// The status page's address cannot be had.
    #[error("AV_PAGE_LISTEN: {0}")]
    Page(#[source] io::Error),
    /// The system refuses a thread.
    #[error("a thread could not be started: {0}")]
    Thread(#[source] io::Error),
    /// A thread panicked again and again.
    #[error("thread {0} keeps failing, the agent ends to be started afresh")]
    ThreadFailed(String),
}

/// Runs until `terminate` says so.
///
/// # Errors
/// [`RunError`]; what was observed until then is on disk.
pub fn run(settings: &Settings, terminate: &Receiver<()>) -> Result<(), RunError> {
    let started = Instant::now();
    let memory_path = settings.state_dir.join("devices.json");
    let clock = Clock::new(Arc::new(SystemSource), last_good_time(&memory_path));
    let store = ConfigStore::new(&settings.config_path);
    let loaded = store.load()?;
    if let Some(fallback) = &loaded.fallback {
        log::error!("❌ {fallback}");
    }
    let active = loaded.active;
    log::info!(
        "🎬 AV agent {} for {}: {} devices configured, backend {}",
        crate::VERSION,
        av_proto::text::excerpt(&active.site.site_name, 100),
        active.site.devices.len(),
        active.identity.backend_url
    );
    let snapshots = Snapshots::default();
    snapshots.sync.store(Arc::new(SyncState {
        current_hash: active.hash.clone(),
        config_updated_at: active.applied_at,
        ..SyncState::default()
    }));
    let handle = Arc::new(ArcSwap::from_pointee(active));
    let (edge, mut reactor) = page::listen(settings.page_listen).map_err(RunError::Page)?;
    log::info!("🌐 Status page on http://{}/", settings.page_listen);

    let (running, stop) = bounded(0);
    let (fatal, failed) = bounded(1);
    let (sync_now, sync_asked) = bounded(1);
    let (config_changed, config_news) = bounded(1);
    let (batches, batches_in) = bounded(BATCHES);
    let (probe_now, probe_wishes) = ProbeNow::channel();
    let health = Health::default();
    let client = HttpClient::with_tls(settings.tls.clone());
    let progress = health.progress().clone();
    let supervisor = Supervisor::new(health.clone(), stop.clone(), fatal);

    let mut sync = Sync {
        store,
        handle: Arc::clone(&handle),
        snapshots: snapshots.clone(),
        client: client.clone(),
        source: ConfigSource::new(client.clone()),
        clock: clock.clone(),
        first_sync: settings.first_sync,
        interval: settings.sync_interval(),
        interval_min: settings.sync_interval_min,
        sync_now: sync_asked,
        config_changed: config_changed.clone(),
        stop: stop.clone(),
    };
    let notices = settings
        .pjlink_notices
        .and_then(|address| listen(address, &handle, &probe_now, &stop));
    let drivers = Arc::new(Drivers::start_with(&health, probe_now));
    let mut collector = Collector {
        handle: Arc::clone(&handle),
        snapshots: snapshots.clone(),
        prober: Arc::<Drivers>::clone(&drivers),
        clock: clock.clone(),
        memory_path,
        config_changed: config_news,
        probe_now: probe_wishes,
        batches,
        stop: stop.clone(),
    };
    let mut reporter = Reporter {
        spool_dir: settings.state_dir.join("spool"),
        limits: Limits {
            max_bytes: settings.spool_max_bytes,
            max_age: settings.spool_max_age,
        },
        handle: Arc::clone(&handle),
        snapshots: snapshots.clone(),
        client,
        clock: clock.clone(),
        started,
        sync_now: sync_now.clone(),
        batches: batches_in,
        stop: stop.clone(),
    };
    let gate = page::Gate {
        hosts: Hosts::new(settings.page_hosts.clone()),
    };
    let listening = edge.clone();
    let page = Page {
        edge,
        sources: Sources {
            handle,
            snapshots,
            drivers,
            health,
            clock,
            started,
            sync_interval: settings.sync_interval(),
            fallback: loaded.fallback,
        },
        sync_now: Wish::new(sync_now, settings.page_pause),
        // To the collector a wish and a change are the same: it looks for
        // a new configuration and sweeps.
        sweep_now: Wish::new(config_changed, settings.page_pause),
    };

    supervisor
        .spawn("report", move || reporter.run())
        .and_then(|()| supervisor.spawn("collector", move || collector.run()))
        .and_then(|()| supervisor.spawn("sync", move || sync.run()))
        .map_err(RunError::Thread)?;
    if let Some(mut notices) = notices {
        supervisor
            .spawn("notices", move || notices.run())
            .map_err(RunError::Thread)?;
    }
    supervisor
        .spawn("page-edge", move || {
            if let Err(error) = reactor.run(&gate) {
                log::error!("❌ Status page: {error}");
            }
        })
        .map_err(RunError::Thread)?;
    for _ in 0..PAGE_THREADS {
        let mut page = page.clone();
        supervisor
            .spawn("page", move || page.run())
            .map_err(RunError::Thread)?;
    }
    drop(page);

    let mut watchdog = Watchdog::new(progress, settings.hang_limit);
    watchdog.ready("watches the site");
    let outcome = loop {
        select! {
            recv(terminate) -> _ => break Ok(()),
            recv(failed) -> thread => {
                break Err(RunError::ThreadFailed(thread.unwrap_or_default()));
            }
            default(watchdog.wait()) => watchdog.look(),
        }
    };
    log::info!("👋 AV agent ends");
    watchdog.stopping();
    drop(running);
    listening.close();
    if !supervisor.join(STOP_MAX) {
        // A thread waits for the network; what it holds is on disk.
        log::warn!("⚠️ Not every thread ended in time");
    }
    outcome
}

/// Listens for notices of projectors. Where that cannot be, the site is watched
/// without them.
fn listen(
    address: SocketAddr,
    handle: &ConfigHandle,
    probe_now: &ProbeNow,
    stop: &Stop,
) -> Option<Notices> {
    match Notices::listen(address, Arc::clone(handle), probe_now.clone(), stop.clone()) {
        Ok(notices) => {
            log::info!("📣 Notices of projectors are heard on {address}");
            Some(notices)
        }
        Err(error) => {
            log::error!("❌ AV_PJLINK_NOTICES: {address}: {error}; no notices are heard");
            None
        }
    }
}

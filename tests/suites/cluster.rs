//! The webhook in a real cluster: real objects by kubectl, real pods by containerd, refused or admitted and running.
//!
//! One cluster for all scenarios; each has namespaces of its own. Arguments name those to run.

#[path = "cluster/api.rs"]
mod api;
#[path = "cluster/configured.rs"]
mod configured;
#[path = "cluster/expressions.rs"]
mod expressions;
#[path = "cluster/failures.rs"]
mod failures;
#[path = "cluster/live.rs"]
mod live;
#[path = "cluster/load.rs"]
mod load;
#[path = "cluster/replicas.rs"]
mod replicas;
#[path = "cluster/respond.rs"]
mod respond;
#[path = "cluster/reviews.rs"]
mod reviews;
#[path = "cluster/running.rs"]
mod running;
#[path = "cluster/vouched.rs"]
mod vouched;
#[path = "cluster/world.rs"]
mod world;

use std::{
    env,
    panic::{self, AssertUnwindSafe},
    process::ExitCode,
    time::Instant,
};

use world::World;

type Scenario = fn(&World);

macro_rules! scenarios {
    ($($module:ident: $($name:ident),+;)+) => { &[$($((stringify!($name), $module::$name as Scenario),)+)+] };
}

/// What is tried, in this order.
const SCENARIOS: &[(&str, Scenario)] = scenarios! {
    running: pods_that_ran_before_are_covered_without_a_restart, reports_are_written_of_what_runs_though_the_kind_comes_later;
    reviews: a_pod_that_fits_is_admitted_and_runs,
        what_would_not_start_is_refused_where_it_is_enforced_and_does_not_start_where_it_is_not,
        every_carrier_of_an_image_is_reviewed, every_kind_with_a_pod_is_reviewed,
        updates_are_reviewed_where_something_changes_that_is_judged_and_never_hold_up_an_end,
        a_dry_run_is_answered_and_leaves_nothing, few_may_exempt_a_namespace;
    running: many_pods_of_an_image_that_was_never_seen_cost_one_look;
    api: the_manifests_are_taken_as_they_are_shipped, bad_rules_are_refused_by_the_api_server,
        rules_and_exceptions_of_the_cluster_take_effect_without_a_restart, what_became_of_a_rule_stands_in_its_status,
        a_plan_is_held_against_the_rules_of_the_cluster,
        no_kind_of_the_api_server_carries_an_image_that_is_not_read;
    configured: a_script_that_changes_counts_at_once_and_a_variable_from_the_next_start,
        real_servers_are_bound_again_when_their_configuration_changes;
    respond: responses_are_done_taken_back_and_refused;
    live: intrusions_are_told_with_pod_and_user_and_quiet_is_quiet, a_console_that_anybody_may_open_gets_no_miner_far;
    expressions: expressions_give_what_they_give_in_the_api_server;
    vouched: a_private_image_is_for_those_whose_secret_opens_it, signatures_and_attested_dnas_count_by_who_made_them;
    running: a_thousand_pods_on_nodes_that_are_not_there_are_all_reviewed;
    failures: without_an_answer_the_failure_policy_decides;
    api: the_service_account_s_rights_were_enough;
    failures: installed_as_shipped_its_certificate_and_replicas_are_exchanged_under_load;
    replicas: replicas_share_a_ledger_and_one_is_killed_under_load;
};

fn main() -> ExitCode {
    let wanted: Vec<String> = env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|part| name.contains(part.as_str()));
    let began = Instant::now();
    let world = World::start();
    println!("the cluster and the webhook run after {:.1} s", began.elapsed().as_secs_f32());
    let mut failed = Vec::new();
    for (name, scenario) in SCENARIOS.iter().filter(|(name, _)| is_wanted(name)) {
        let started = Instant::now();
        let done = panic::catch_unwind(AssertUnwindSafe(|| scenario(&world)));
        println!(
            "{} {name} ({:.1} s)",
            if done.is_ok() { "ok    " } else { "FAILED" },
            started.elapsed().as_secs_f32()
        );
        if done.is_err() {
            failed.push(*name);
        }
    }
    println!("all of it took {:.0} s", began.elapsed().as_secs_f32());
    if !failed.is_empty() {
        let log = world.log();
        let lines: Vec<&str> = log.lines().collect();
        println!("the webhook's log ends with\n{}", lines[lines.len().saturating_sub(40)..].join("\n"));
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

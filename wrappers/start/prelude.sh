#!/bin/sh
# htlease-ep.pyz: a zip archive of Python code behind this script. `/bin/sh` finds a Python that
# works and starts it apart from the environment that a job brings for its payload; where there is
# none, the policy applies. `python3 htlease-ep.pyz` works as well.
#
# Promised: no environment keeps the interpreter from starting. Not promised: the same of `/bin/sh`
# itself (dash ends on OPTIND=x, bash runs nothing with SHELLOPTS=noexec).
# Only builtins are used: the payload's PATH may lead anywhere.
set +abCefuvx
unset -f [ printf read kill shopt 2>&-
IFS=' 
'

# What could break the interpreter. The payload gets it back.
htlease_hidden='LD_PRELOAD LD_LIBRARY_PATH LD_AUDIT LD_DEBUG LD_DEBUG_OUTPUT LD_PROFILE LD_BIND_NOW
LD_ORIGIN_PATH LD_SHOW_AUXV LD_ASSUME_KERNEL LD_HWCAP_MASK GLIBC_TUNABLES OPENSSL_CONF
OPENSSL_MODULES OPENSSL_ENGINES LC_CTYPE'

htlease_hide() {
  for htlease_name in $htlease_hidden; do
    eval "case \${$htlease_name+set} in
      set) htlease_kept_$htlease_name=\$$htlease_name; export htlease_kept_$htlease_name
        unset $htlease_name ;;
      esac"
  done
}

htlease_give_back() {
  for htlease_name in $htlease_hidden; do
    eval "case \${htlease_kept_$htlease_name+set} in
      set) $htlease_name=\$htlease_kept_$htlease_name; export $htlease_name
        unset htlease_kept_$htlease_name ;;
      esac"
  done
}

# htlease_works PYTHON: set htlease_answer to what the probe says.
htlease_works() {
  [ -x "$1" ] || return 1
  htlease_answer=$(exec "$1" -ISXutf8 -c '@PROBE@' <&- 2>&-)
  case $htlease_answer in
  'htlease '*) htlease_python=$1 ;;
  *) return 1 ;;
  esac
}

htlease_find() {
  for htlease_candidate in ${HTLEASE_PYTHON:+"$HTLEASE_PYTHON"} \
    /usr/bin/python3 /usr/bin/python3.[0-9] /usr/bin/python3.[1-9][0-9] \
    /usr/local/bin/python3 /usr/local/bin/python3.[0-9] /usr/local/bin/python3.[1-9][0-9]; do
    htlease_works "$htlease_candidate" && return
  done
  htlease_blanks=$IFS IFS=:
  set -f
  for htlease_folder in $PATH:/opt/conda/bin; do
    IFS=$htlease_blanks
    case $htlease_folder in
    /*) htlease_works "$htlease_folder/python3" && return ;;
    esac
  done
  return 1
}

htlease_refuse_phases() {
  htlease_say 'the phases of a plan cannot be kept; ask the site, or an image, for python3'
  exit 78
}

htlease_say() {
  printf 'htlease: %s: %s\n' "$htlease_why" "$1" >&2
}

# htlease_do_without ARGUMENTS...: end, or become the payload, by the policy of site or job.
htlease_do_without() {
  trap - 0
  htlease_give_back
  case ${0##*/} in
  shadow_prepare_job | prepare_job_before_transfer | prepare_job) htlease_answer_daemon "$*" ;;
  router_translate_job) htlease_translate ;;
  update_job_info | job_exit | router_*)
    htlease_say 'the hook does nothing'
    exit 0
    ;;
  esac
  if htlease_is_job "$@"; then
    [ -z "$htlease_plan" ] || htlease_refuse_phases
    set -- "$htlease_program" "$@"
  fi
  case $1 in
  /*) ;; # so does a site put us in front of jobs that know nothing of us
  run)
    shift
    while :; do
      case $1 in
      --plan | --plan=* | --profile | --profile=*) htlease_refuse_phases ;;
      --) shift && break ;;
      --*=*) shift ;;
      --?*) shift && [ $# -gt 0 ] && shift ;;
      *) break ;;
      esac
    done
    ;;
  *) set -- ;;
  esac
  case $#,${HTLEASE_ON_NO_SERVER:-run} in
  0,*)
    htlease_say 'ask the site for python3, set HTLEASE_PYTHON=/path/of/python3, or use the hooks'
    exit 78
    ;;
  *,idle | *,hold)
    htlease_say "the payload is not started, since HTLEASE_ON_NO_SERVER is $HTLEASE_ON_NO_SERVER"
    exit 78
    ;;
  esac
  htlease_say 'the payload runs untracked, without a lease; nothing of it is recorded'
  case $1 in
  /*) ;;
  */*)
    htlease_program=$PWD/${1#./}
    shift
    set -- "$htlease_program" "$@"
    ;;
  esac
  exec "$@"
  exit
}

# htlease_is_job ARGUMENTS...: tell whether `htlease submit` put this file in front of a job, which
# keeps its arguments while its ad names the program (`htlease_wrapper/wrapped_job.py`); that is
# then in htlease_program.
htlease_is_job() {
  htlease_program= htlease_elsewhere= htlease_plan= htlease_cmd= htlease_id=
  [ -r "${_CONDOR_JOB_AD-}" ] || return 1
  while read -r htlease_name htlease_equals htlease_value; do
    case $htlease_name in
    HTLeaseProgram) htlease_unquote && htlease_program=$htlease_text ;;
    HTLeaseProgramPath) htlease_unquote && htlease_elsewhere=$htlease_text ;;
    HTLeasePlan) htlease_unquote && htlease_plan=$htlease_text ;;
    Cmd) htlease_unquote && htlease_cmd=${htlease_text##*/} ;;
    GlobalJobId) htlease_unquote && htlease_id=$htlease_text ;;
    esac
  done <"$_CONDOR_JOB_AD"
  case ${htlease_program##*/} in '' | htlease-ep*.pyz) return 1 ;; esac
  case ${0##*/} in "$htlease_cmd" | condor_exec.exe) ;; *) return 1 ;; esac
  case ${1##*/} in "${htlease_cmd:-/}" | condor_exec.exe) return 1 ;; esac
  case ${HTLEASE_ATTEMPT-} in "$htlease_id"@*) return 1 ;; esac
  htlease_folder=${_CONDOR_SCRATCH_DIR:-$PWD}
  case $htlease_program in /*) ;; *) htlease_program=$htlease_folder/$htlease_program ;; esac
  if [ ! -e "$htlease_program" ] && [ -e "$htlease_elsewhere" ]; then
    htlease_program=$htlease_elsewhere
  elif [ ! -x "$htlease_program" ]; then
    /bin/chmod a+x "$htlease_program" # as HTCondor does it with what it sends as executable
  fi
}

# Set htlease_text to the text that the ClassAd string htlease_value stands for.
htlease_unquote() {
  htlease_text=
  case $htlease_value in \"*\") ;; *) return 1 ;; esac
  htlease_value=${htlease_value#?}
  htlease_value=${htlease_value%?}
  while :; do
    htlease_text=$htlease_text${htlease_value%%\\*}
    case $htlease_value in
    *\\?*) htlease_value=${htlease_value#*\\} ;;
    *) return ;;
    esac
    htlease_rest=${htlease_value#?}
    htlease_text=$htlease_text${htlease_value%"$htlease_rest"}
    htlease_value=$htlease_rest
  done
}

# The codes are those of hooks/README.md.
htlease_answer_daemon() {
  case " $1 " in
  *' --on-no-server=idle '*) htlease_code=602 ;;
  *' --on-no-server=hold '*) htlease_code=173 ;;
  *)
    htlease_say 'the job starts without a lease'
    exit 0
    ;;
  esac
  htlease_say 'this site starts no job without a lease'
  printf 'HookStatusCode = %s\n' "$htlease_code"
  printf 'HookStatusMessage = "htlease: %s, and this site starts no job without a lease"\n' \
    "$htlease_why"
  exit "${htlease_code#?}"
}

# A job whose ad does not come back is blocked for ever.
htlease_translate() {
  htlease_say 'the job is routed as it is'
  htlease_is_ad=
  while read -r htlease_line; do
    case $htlease_is_ad$htlease_line in
    ------*) htlease_is_ad=yes ;;
    yes*) printf '%s\n' "$htlease_line" ;;
    esac
  done
  exit 0
}

case ${HTLEASE_WITHOUT+set} in
set) # the interpreter was started and did not get far
  htlease_why="Python cannot start here, $HTLEASE_WITHOUT"
  unset HTLEASE_WITHOUT
  htlease_do_without "$@"
  ;;
esac
# A shell that cannot fork, or exec, can do nothing more than this.
htlease_why='no process can be started to look for a Python'
trap 'htlease_do_without "$@"' 0
case ${BASH_VERSION-} in
?*) # whose EXIT trap runs when a signal ends it, too, and not when exec fails
  shopt -s execfail 2>&-
  for htlease_name in HUP INT QUIT ALRM TERM USR1 USR2 XCPU VTALRM PROF; do
    trap "trap - 0 $htlease_name; kill -$htlease_name \$\$" "$htlease_name"
  done
  ;;
esac
htlease_hide
if htlease_find; then
  htlease_why="$htlease_python cannot be started"
  set -f
  exec "$htlease_python" -ISXutf8 -c '@BOOT@' "$0" ${htlease_answer#* } . "$@"
  htlease_do_without "$@"
fi
htlease_why='there is no Python of 3.9 or later that works'
htlease_do_without "$@"
exit 126

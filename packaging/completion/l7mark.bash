# SPDX-License-Identifier: GPL-2.0-only
# bash completion for l7mark and l7markd: subcommands by name, options by asking --help.
_l7mark() {
	local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} command='' word
	local commands='load unload status flows events reload check classify features'
	for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
		case " $commands " in *" $word "*) command=$word ;; esac
	done
	case $previous in
	--mode) mapfile -t COMPREPLY < <(compgen -W 'auto native generic tc' -- "$current") && return ;;
	--log-level) mapfile -t COMPREPLY < <(compgen -W 'debug info warning error' -- "$current") && return ;;
	--format) mapfile -t COMPREPLY < <(compgen -W 'json table' -- "$current") && return ;;
	--path) mapfile -t COMPREPLY < <(compgen -W 'kernel user' -- "$current") && return ;;
	--policy | --protocols) mapfile -t COMPREPLY < <(compgen -f -- "$current") && return ;;
	esac
	if [[ $current == -* ]]; then
		local options
		# Those of l7mark itself may stand behind a command, too.
		# shellcheck disable=SC2086
		options=$({ "${COMP_WORDS[0]}" --help && "${COMP_WORDS[0]}" $command --help; } 2>/dev/null |
			grep -oE '^  (-[a-z],)?--[a-z-]+' | grep -oE -- '--[a-z-]+' | sort -u)
		mapfile -t COMPREPLY < <(compgen -W "$options" -- "$current")
	elif [ "${COMP_WORDS[0]##*/}" = l7mark ] && [ -z "$command" ]; then
		mapfile -t COMPREPLY < <(compgen -W "$commands" -- "$current")
	elif [ "$command" = load ] || [ "$command" = unload ]; then
		mapfile -t COMPREPLY < <(compgen -W "$(ip -o link 2>/dev/null | sed 's/^[0-9]*: \([^:@]*\).*/\1/')" -- "$current")
	else
		mapfile -t COMPREPLY < <(compgen -f -- "$current")
	fi
}
complete -F _l7mark l7mark l7markd

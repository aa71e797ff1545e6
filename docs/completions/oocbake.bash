# SPDX-License-Identifier: Apache-2.0
# bash completion for oocbake

_oocbake()
{
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
	local commands='bake plan verify inspect formats'
	local options='-m --model -l --lora --layout --dtype --quant -q --bits --q-group-size --tensor-type --skip
		--allow-unused --strict --nonfinite --max-shard-size --memory -t --threads --io --sandbox --progress
		--report --json -v --verbose -h --help'
	local words=''

	COMPREPLY=()
	if [ "$COMP_CWORD" -eq 1 ]; then
		mapfile -t COMPREPLY < <(compgen -W "$commands --help --version" -- "$cur")
		return
	fi
	case $prev in
	--layout) words='auto hf mlx' ;;
	--dtype) words='auto f32 f16 bf16' ;;
	--quant) words='keep none mlx:4 mlx:8 bnb-nf4 bnb-nf4,nested bnb-fp4 bnb-int8' ;;
	-q | --bits) words='2 3 4 5 6 8' ;;
	--q-group-size) words='32 64 128' ;;
	--io) words='auto uring threads sync' ;;
	--sandbox) words='auto on off' ;;
	--verify) words='none sample full' ;;
	--depth) words='headers sample full' ;;
	--nonfinite) words='fail warn keep' ;;
	--progress) words='auto bar plain json none' ;;
	--max-shard-size | --memory | -t | --threads | --tensor-type | --skip) return ;;
	-m | --model | -l | --lora | -o | --output | --report) ;;
	*)
		if [[ $cur == -* ]]; then
			case ${COMP_WORDS[1]} in
			bake | plan) words="$options -o --output --force --resume --verify -n --dry-run" ;;
			verify) words="$options --depth" ;;
			*) words='--json --help' ;;
			esac
		fi
		;;
	esac
	if [ -n "$words" ]; then
		mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
	else
		compopt -o filenames
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
	fi
}
complete -F _oocbake oocbake

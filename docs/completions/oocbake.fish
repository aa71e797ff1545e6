# SPDX-License-Identifier: Apache-2.0
# fish completion for oocbake

set -l commands bake plan verify inspect formats
set -l none "not __fish_seen_subcommand_from $commands"
set -l job '__fish_seen_subcommand_from bake plan verify'
set -l out '__fish_seen_subcommand_from bake plan'

complete -c oocbake -n $none -f -a bake -d 'Make the output'
complete -c oocbake -n $none -f -a plan -d 'Print what bake would write'
complete -c oocbake -n $none -f -a verify -d 'Compare an output with what bake would write'
complete -c oocbake -n $none -f -a inspect -d 'List the tensors of a model or an adapter'
complete -c oocbake -n $none -f -a formats -d 'List the formats that can be read and written'

complete -c oocbake -n $job -s m -l model -r -d Model
complete -c oocbake -n $job -s l -l lora -r -d 'Adapter, PATH or PATH:SCALE'
complete -c oocbake -n $job -l layout -x -a 'auto hf mlx' -d 'Layout of the output folder'
complete -c oocbake -n $job -l dtype -x -a 'auto f32 f16 bf16' -d 'Float type of what is not quantized'
complete -c oocbake -n $job -l quant -x -a 'keep none mlx:4 mlx:8 bnb-nf4 bnb-nf4,nested bnb-fp4 bnb-int8' -d 'Number format of the weights'
complete -c oocbake -n $job -s q -l bits -x -a '2 3 4 5 6 8' -d 'MLX quantization, bits'
complete -c oocbake -n $job -l q-group-size -x -a '32 64 128' -d 'Group size for -q'
complete -c oocbake -n $job -l tensor-type -x -d 'Format of matching tensors, REGEX=SCHEME'
complete -c oocbake -n $job -l skip -x -d 'Leave matching tensors as they are'
complete -c oocbake -n $job -l allow-unused -d 'Keys that match nothing are warnings'
complete -c oocbake -n $job -l strict -d 'Warnings about inputs are errors'
complete -c oocbake -n $job -l nonfinite -x -a 'fail warn keep' -d 'What a NaN or infinity leads to'
complete -c oocbake -n $job -l max-shard-size -x -d 'Bytes of tensors in one file'
complete -c oocbake -n $job -l memory -x -d 'Limit, a size or a share'
complete -c oocbake -n $job -s t -l threads -x -d 'Worker threads'
complete -c oocbake -n $job -l io -x -a 'auto uring threads sync' -d 'How files are read and written'
complete -c oocbake -n $job -l sandbox -x -a 'auto on off' -d 'Give up what the run does not need'
complete -c oocbake -n $job -l progress -x -a 'auto bar plain json none' -d 'How progress is shown'
complete -c oocbake -n $job -l report -r -d 'Write the report to a .json or .html file'
complete -c oocbake -n $job -s v -l verbose -d 'Print more'
complete -c oocbake -n $out -s o -l output -r -d 'Output folder or .safetensors file'
complete -c oocbake -n $out -l force -d 'Replace an output that exists'
complete -c oocbake -n $out -l resume -d 'Go on where an earlier run stopped'
complete -c oocbake -n $out -l verify -x -a 'none sample full' -d 'Read back what was written'
complete -c oocbake -n '__fish_seen_subcommand_from verify' -l depth -x -a 'headers sample full' -d 'How much is compared'
complete -c oocbake -n $out -s n -l dry-run -d 'Print the plan and stop'

complete -c oocbake -l json -d 'Results and errors as JSON'
complete -c oocbake -s h -l help -d 'Show the options'
complete -c oocbake -n $none -l version -d 'Show the version'

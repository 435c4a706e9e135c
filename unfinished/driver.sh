# Runs the steps of /tmp/ctl/queue one after the other in /tmp/tree; a step's end leaves /tmp/ctl/done/STEP.
cd /tmp/tree && . /tmp/gpu/env.sh
export PYTHONPATH=/tmp/gpu/site:/tmp/tree
mkdir -p /tmp/mps/pipe /tmp/mps/log
if command -v nvidia-cuda-mps-control >/dev/null; then
  CUDA_MPS_PIPE_DIRECTORY=/tmp/mps/pipe CUDA_MPS_LOG_DIRECTORY=/tmp/mps/log timeout 20 nvidia-cuda-mps-control -d </dev/null >/tmp/ctl/log/mps 2>&1
  CUDA_MPS_PIPE_DIRECTORY=/tmp/mps/pipe CUDA_MPS_LOG_DIRECTORY=/tmp/mps/log timeout 60 python3 -c 'import torch; print(torch.ones(3, device="cuda").sum())' >>/tmp/ctl/log/mps 2>&1 && MPS=1
  echo get_server_list | CUDA_MPS_PIPE_DIRECTORY=/tmp/mps/pipe timeout 10 nvidia-cuda-mps-control >>/tmp/ctl/log/mps 2>&1
else echo none >/tmp/ctl/log/mps; fi
n=1
while true; do
  line=$(sed -n "${n}p" /tmp/ctl/queue)
  if [ -z "$line" ]; then sleep 1; continue; fi
  n=$((n+1)); echo $n > /tmp/ctl/next
  IFS=: read -r kind name more <<<"$line"
  step=$kind-$name; began=$SECONDS
  echo "$line" > /tmp/ctl/current
  case $kind in
    bench) ( [ -n "$MPS" ] && export CUDA_MPS_PIPE_DIRECTORY=/tmp/mps/pipe CUDA_MPS_LOG_DIRECTORY=/tmp/mps/log
             mkdir -p /tmp/jobs/$name
             exec python3 -m labkit bench $name --folder /tmp/jobs/$name ${more//+/ } ) >/tmp/ctl/log/$step 2>&1 ;;
    lesson) LABKIT_PROFILE=gpu python3 -m labkit build $name --execute --record >/tmp/ctl/log/$step 2>&1 ;;
    sh) bash -c "${name//,/ }" >/tmp/ctl/log/sh-$n 2>&1; step=sh-$n ;;
  esac
  echo "rc $? after $((SECONDS-began)) s" > /tmp/ctl/done/$step
  echo idle > /tmp/ctl/current
done

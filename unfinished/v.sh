# v.sh start SECONDS LINE...   |   v.sh poll SECONDS [LINE...]
what=$1; secs=$2; shift 2
if [ "$what" = start ]; then
  mkdir -p /tmp/ctl/log /tmp/ctl/done /tmp/jobs /tmp/tree
  tar cf - --exclude=./.gpu --exclude=./.git --exclude=./.venv . | tar xf - -C /tmp/tree
  [ -d .scratch/carry ] && cp -r .scratch/carry/. /tmp/jobs/
  : > /tmp/ctl/queue; touch /tmp/ctl/stamp
  nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader; nproc
  for line in "$@"; do echo "$line" >> /tmp/ctl/queue; done
  setsid bash .scratch/driver.sh </dev/null >/tmp/ctl/driver.log 2>&1 &
else
  for line in "$@"; do echo "$line" >> /tmp/ctl/queue; done
fi
end=$((SECONDS+secs))
while [ $SECONDS -lt $end ]; do sleep 2; [ -z "$NOEARLY" ] && [ "$(cat /tmp/ctl/current 2>/dev/null)" = idle ] && [ "$(cat /tmp/ctl/next)" -gt "$(wc -l < /tmp/ctl/queue)" ] && break; done
cd /tmp/tree
echo "now: $(cat /tmp/ctl/current)"; for f in /tmp/ctl/done/*; do echo "$(basename $f): $(cat $f)"; done
cat /tmp/ctl/log/mps
for d in /tmp/jobs/*/; do echo "$d $(find $d -name '*.json' | wc -l)"; done
cur=$(ls -t /tmp/ctl/log | head -1); echo "-- $cur"; tr '\r' '\n' < /tmp/ctl/log/$cur | tail -4 | cut -c1-300
for f in /tmp/ctl/done/*; do grep -q "rc 0" $f || { echo "FAILED $f"; tail -c 1500 /tmp/ctl/log/$(basename $f); }; done
nvidia-smi --query-gpu=utilization.gpu,memory.used --format=csv,noheader
find . \( -name '*.ipynb' -o -path './data/measurements/*' \) -newer /tmp/ctl/stamp -type f > /tmp/ctl/changed
( cd /tmp && tar cf - -C /tmp ctl jobs --exclude='*.part' -C /tmp/tree -T /tmp/ctl/changed ) | xz -T8 -1 > $OUT/res.txz
ls -l $OUT/res.txz | awk '{print $5}'

from labkit.bench import soft, methods as bm
from pathlib import Path
import json, sys
F=Path(sys.argv[1])
a=vars(__import__('types').SimpleNamespace(**soft.GPU))
def run(names):
    return {n: json.loads((F/f'{n}.json').read_text()) for n in names}
tried=soft.sweep(a,run,bm.EXTENSIONS)
best={k:bm.best_rate(v) for k,v in tried.items()}
print({k:{r:round(x['right'],3) for r,x in v.items()} for k,v in tried.items()})
names=soft.names(a,best)
todo=[n for n in names if not (F/f'{n}.json').exists()]
print(len(todo)); 
short=[n for n in todo if '3600' not in n]
print(short)
open('.scratch/todo','w').write('\n'.join(short)+'\n')
